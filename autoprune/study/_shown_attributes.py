"""The user attributes of a trial, for people who read or sort trials in Optuna's dashboard or data frame.

autoprune itself reads only the origin of them. Its facts are system attributes, which a dashboard hides.

Example:
    shown_proposal(widths, costs, facts, ("score",))    # {"MACs, % of dense": 49.3, "widths": "conv1 11/16"}
    shown_outcome(reused=None, failure="diverged")      # {"failure": "diverged"}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS
from autoprune.errors import shortened
from autoprune.study._facts import StudyFacts

_LONGEST = 10_000
"""Characters of the longest text. A column of a database server may hold 64 KB."""


VERDICT, BEST, BUDGET, DENSE = "verdict", "best trial", "budget", "dense model"
SHOWN = (VERDICT, BEST, BUDGET, DENSE)
"""The user attributes of a study. A dashboard lists them first, because they are stored before all others."""


def shown_study(facts: StudyFacts) -> dict[str, str]:
    """Return the attributes of a new study."""
    limits = (_cost(name, limit, None) for name, limit in facts.limits.items())
    dense = (_cost(name, cost, None) for name, cost in facts.dense_costs.items())
    return {
        VERDICT: "no race has ended",
        BEST: "no trial is complete yet",
        BUDGET: f"at most {', '.join(limits)}" if facts.limits else "none",
        DENSE: ", ".join([f"score {score_text(facts.dense_score, facts.dense_error)}", *dense]),
    }


def shown_proposal(
    widths: Mapping[str, int], costs: Mapping[str, float], facts: StudyFacts, objectives: Sequence[str]
) -> dict[str, Any]:
    """Return the costs and widths of a candidate.

    Args:
        widths: of all groups.
        costs: of the candidate, by name.
        facts: of its study.
        objectives: of its study.

    Returns:
        All costs as one text, and as numbers the shares of the dense model's MACs and parameters, and of each
        cost that is minimised or limited. One text has the widths next to those of the dense model.
    """
    main = dict.fromkeys(("macs", "params", *objectives[1:], *facts.limits))
    shares = {
        f"{COSTS[name].label}, % of dense": round(100 * costs[name] / facts.dense_costs[name], 2)
        for name in main
        if name in costs and facts.dense_costs.get(name)
    }
    kept = {name: f"{widths[name]}/{dense}" for name, dense in facts.dense_widths.items() if name in widths}
    texts = {
        "costs": ", ".join(_cost(name, cost, facts.limits.get(name)) for name, cost in costs.items()),
        "widths": ", ".join(f"{name} {width}" for name, width in (kept or widths).items()),
    }
    return {**shares, **{key: shortened(text, _LONGEST) for key, text in texts.items()}}


def shown_outcome(*, reused: int | None, failure: str | None) -> dict[str, Any]:
    """Return the reason of a failure, or the trial whose scores were taken. Most trials have neither."""
    taken = {} if reused is None else {"scores": f"those of trial {reused}, which has the same widths"}
    return taken if failure is None else {**taken, "failure": failure}


def _cost(name: str, cost: float, limit: float | None) -> str:
    """Return a cost in its unit, with its limit if the budget has one: "latency 3.1 ms (limit 4 ms)"."""
    unit = COSTS[name].unit
    # What is counted has its name in the unit: "20.3 M MACs".
    label = "" if unit.is_whole and not unit.symbol else f"{COSTS[name].label} "
    return f"{label}{unit.write(cost)}" + ("" if limit is None else f" (limit {unit.write(limit)})")
