"""A study as tables for the terminal.

Before: `report.summary`; after: the command line prints them.

    console.print(trial_table(summary, most=5))
"""

from __future__ import annotations

from rich.table import Table

from autoprune.report.summary import StudySummary, outcome
from autoprune.study import TrialRecord


def trial_table(summary: StudySummary, *, most: int) -> Table:
    """Draw the `most` best trials of a study, and the dense model above them.

    Args:
        summary: of the study.
        most: rows; failed trials follow the scored ones.
    """
    table = Table(title=f"Study {summary.study}: {_counted(summary)}", title_justify="left")
    for column in ("trial", summary.metric, "MACs", "params", "seconds", "origin", "outcome"):
        table.add_column(column, justify="left" if column in ("origin", "outcome") else "right")
    table.add_row("dense", f"{summary.dense_score:.4f}", "100.0%", "100.0%", "", "", "", end_section=True)
    scored = summary.ranked()
    failed = [record for record in summary.records if record.state == "failed" and record.score is None]
    for record in [*scored, *failed][:most]:
        table.add_row(
            str(record.number),
            "-" if record.score is None else f"{record.score:.4f}",
            f"{summary.macs_share(record):.1%}",
            f"{summary.params_share(record):.1%}",
            "-" if record.seconds is None else f"{record.seconds:.1f}",
            record.origin,
            _ended(record),
            style="bold" if summary.best is not None and record.number == summary.best.number else "",
        )
    return table


def best_table(summary: StudySummary) -> Table:
    """Draw the widths of the best trial."""
    best = summary.best
    title = "No trial has completed" if best is None else f"Best: trial {best.number}"
    table = Table(title=title, title_justify="left")
    table.add_column("group")
    table.add_column("width kept", justify="right")
    for name, width in (best.widths if best is not None else {}).items():
        table.add_row(name, str(width))
    return table


def summary_notes(summary: StudySummary) -> list[str]:
    """Say in sentences how the rungs agree, and which trials failed why."""
    notes = [
        f'Kendall\'s tau of "{found.lower}" and "{found.upper}": {found.tau:.2f} over {found.trials} trials.'
        for found in summary.agreements
    ]
    failures = [
        record for record in summary.records if record.failure is not None and record.state == "failed"
    ]
    notes += [f"Trial {record.number} failed: {record.failure}" for record in failures[:3]]
    return notes


def _ended(record: TrialRecord) -> str:
    reused = f", as trial {record.reused}" if record.reused is not None else ""
    return f"{outcome(record)}{reused}"


def _counted(summary: StudySummary) -> str:
    return ", ".join(f"{count} {word}" for word, count in summary.counts().items()) or "no trials"
