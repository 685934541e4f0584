"""Write a study as tables and as the next command, for the terminal.

Example:
    console.print(trial_table(summary, most=5))
    next_command(summary, storage)       # "autoprune finetune digits"
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS, LATENCY, three_digits
from autoprune.reporting._rows import cost_rows, counted, listed, outcome, race_rows, shares, width_rows
from autoprune.reporting._summary import StudySummary
from autoprune.study import TrialRecord, study_command


def plain_table(title: str) -> Table:
    """Return an empty table with a title and a rule only below its header, so that it fits in 80 columns."""
    return Table(title=title, title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))


def trial_table(summary: StudySummary, *, most: int | None = None, only: TrialRecord | None = None) -> Table:
    """Return a table of the best trials of a study, below the dense model.

    Args:
        summary: summary of the study.
        most: largest number of trials. All by default. Failed trials come after those with a score.
        only: a trial to show alone.
    """
    table = plain_table(f"Study {summary.study}: {counted(summary)}")
    for column in (
        "trial",
        f"{summary.metric}\nafter {summary.rungs[-1]}",
        *_cost_headings(summary),
        "seconds",
        "origin",
        "outcome",
    ):
        table.add_column(
            column,
            justify="left" if column in ("origin", "outcome") else "right",
            no_wrap=column == "origin",
        )
    dense = (
        score_text(summary.dense_score, summary.dense_error),
        *_cost_cells(summary, shares(summary, None)),
    )
    table.add_row("dense", *dense, "", "", "", end_section=True)
    for record in listed(summary)[:most] if only is None else [only]:
        table.add_row(
            str(record.number),
            score_text(record.score, record.error),
            *_cost_cells(summary, shares(summary, record)),
            "-" if record.seconds is None else f"{record.seconds:.1f}",
            record.origin.replace(", ", "\n"),
            outcome(record),
            style="bold" if summary.best is not None and record.number == summary.best.number else "",
        )
    return table


def race_table(summary: StudySummary) -> Table:
    """Return a table of the race, the winner first: the score of every entrant after each stage."""
    table = plain_table(f"Race of {summary.study}: {summary.metric} by epochs of training")
    ends = [] if summary.race is None else summary.race.result.ends
    for column in ("trial", *map(str, ends)):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("origin", no_wrap=True)
    for row in race_rows(summary):
        cells = ["" if stage is None else score_text(stage.score, stage.error) for stage in row.stages]
        left = ", left the race" if row.failure is not None else ""
        origin = f"{row.origin}{left}".replace(", ", "\n")
        table.add_row(str(row.number), *cells, origin, style="bold" if row.is_winner else "")
    return table


def front_table(summary: StudySummary) -> Table:
    """Return a table of the Pareto front, the cheapest trial first, below the dense model."""
    against = ", ".join(COSTS[cost].label for cost in summary.objectives[1:])
    table = plain_table(f"Pareto front of {summary.study}: {summary.metric} against {against}")
    for column in ("trial", summary.metric, *_cost_headings(summary)):
        table.add_column(column, justify="right")
    table.add_column("origin", no_wrap=True)
    dense = score_text(summary.dense_score, summary.dense_error)
    table.add_row("dense", dense, *_cost_cells(summary, shares(summary, None)), "", end_section=True)
    for record in summary.front:
        score = score_text(record.score, record.error)
        origin = record.origin.replace(", ", "\n")
        table.add_row(str(record.number), score, *_cost_cells(summary, shares(summary, record)), origin)
    return table


def _cost_headings(summary: StudySummary) -> list[str]:
    """Return a heading for each cost, and one more for the milliseconds of a latency."""
    headings = []
    for cost in summary.shown_costs:
        headings += [COSTS[cost].label, "ms"] if cost == LATENCY else [COSTS[cost].label]
    return headings


def _cost_cells(summary: StudySummary, amounts: Sequence[float]) -> list[str]:
    """Return shares of the dense model's costs as text, and after a latency its milliseconds.

    The milliseconds are the share times the dense model's. The measured ones of two trials cannot be compared
    if the machine was busy during one of the timings.
    """
    cells = []
    for cost, share in zip(summary.shown_costs, amounts, strict=True):
        cells.append("-" if math.isnan(share) else f"{share:.1%}")
        if cost == LATENCY:
            took = share * summary.dense_costs.get(LATENCY, math.nan)
            cells.append("-" if math.isnan(took) else three_digits(took))
    return cells


def widths_table(summary: StudySummary, trial: TrialRecord | None) -> Table:
    """Return a table of the widths of a trial, usually the best one, in the groups that are searched."""
    title = "No trial has completed" if trial is None else f"Best: trial {trial.number}"
    table = Table(title=title, title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("width kept", justify="right", no_wrap=True)
    for row in width_rows(summary, trial):
        table.add_row(row.group, str(row.width) if row.dense is None else f"{row.width} / {row.dense}")
    return table


def cost_table(summary: StudySummary, trial: TrialRecord) -> Table:
    """Return a table of all known costs of a trial, next to those of the dense model."""
    table = Table(title=f"Costs of trial {trial.number}", title_justify="left")
    for column in ("", "trial", "dense", "share"):
        table.add_column(column, justify="right" if column else "left", no_wrap=True)
    for row in cost_rows(summary, trial):
        dense = "-" if row.dense is None else COSTS[row.cost].unit.write(row.dense)
        share = "-" if row.share is None else f"{row.share:.1%}"
        table.add_row(row.label, COSTS[row.cost].unit.write(row.value), dense, share)
    return table


def failure_table(summary: StudySummary) -> Table:
    """Return a table of the reasons for which trials failed, the most frequent first."""
    table = Table(title="Failures", title_justify="left")
    table.add_column("trials", justify="right")
    table.add_column("first", justify="right")
    table.add_column("reason", overflow="fold")
    for failure in summary.failures():
        table.add_row(str(len(failure.trials)), str(failure.trials[0]), Text(failure.reason))
    return table


def next_command(summary: StudySummary, storage: str, *, anywhere: bool = False) -> str:
    """Return the command to run next on a study with a complete trial.

    With several objectives it is `best`, with a limit on the first cost that the middle trial of the Pareto
    front meets.

    Args:
        summary: summary of the study.
        storage: URL of the study's storage.
        anywhere: whether the command is read later, perhaps in another folder. See `study_command`.
    """
    if summary.front:
        cost = summary.objectives[1]
        middle = summary.share(summary.front[len(summary.front) // 2], cost)
        limit = (COSTS[cost].keys[0].option, f"{math.ceil(100 * middle)}%")
        return study_command("best", summary.study, storage, *limit, anywhere=anywhere)
    if summary.is_export_as_scored:
        command = study_command("export", summary.study, storage, "--format", "onnx", anywhere=anywhere)
        return f"{command} (or finetune it before)"
    command = study_command("finetune", summary.study, storage, anywhere=anywhere)
    if summary.race is None or summary.verdict is None:
        return command
    verdict = summary.verdict
    is_other = not verdict.is_clear and verdict.uniform not in (None, verdict.winner)
    also = f", or with --trial {verdict.uniform} uniform" if is_other else ""
    return f"{command} (reads the test part and saves the winner{also}, without any training)"
