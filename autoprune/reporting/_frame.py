"""A study as a pandas DataFrame with a row for each trial.

Example:
    frame = trial_frame(summary)
    frame[frame.state == "complete"].sort_values("score")[["origin", "macs", "width conv1"]]
"""

from __future__ import annotations

from typing import Any

from autoprune.cost import LATENCY
from autoprune.reporting._rows import outcome
from autoprune.reporting._summary import StudySummary
from autoprune.study import TrialRecord
from autoprune.support.extras import load_extra


def trial_frame(summary: StudySummary) -> Any:
    """Return a pandas DataFrame of all trials, indexed by their numbers.

    Its columns are origin, state, outcome, score, error (the standard error of the score), seconds and
    failure. Each rung has a column, such as "after 50 steps". Each cost has one with its amount ("macs") and
    one with its share of the dense model's ("macs share"). Each group has one with its width ("width conv1").

    Raises:
        ConfigError: pandas is not installed.
    """
    pandas = load_extra("pandas", extra="plotly", purpose="to_dataframe")
    rows = [_row(summary, record) for record in summary.records]
    columns = list(dict.fromkeys(name for row in rows for name in row)) or ["number"]
    return pandas.DataFrame(rows, columns=columns).set_index("number")


def _row(summary: StudySummary, record: TrialRecord) -> dict[str, Any]:
    reached = {score.name: score.score for score in record.scores}
    measured = {} if record.measured is None else {f"timed {LATENCY}": record.measured.latency_ms}
    return {
        "number": record.number,
        "origin": record.origin,
        "state": record.state,
        "outcome": outcome(record),
        "score": record.score,
        "error": record.error,
        **{f"after {rung}": reached.get(rung) for rung in summary.rungs},
        **record.costs,
        **{f"{cost} share": summary.share(record, cost) for cost in record.costs},
        **measured,
        "seconds": record.seconds,
        "failure": record.failure,
        **{f"width {group}": width for group, width in record.widths.items()},
        **{f"criterion {group}": criterion for group, criterion in record.criteria.items()},
    }
