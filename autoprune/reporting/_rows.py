"""Compute the rows of a report's tables, which the terminal and the HTML report write each in their own way.

Example:
    cost_rows(summary, summary.best)[0].share         # 0.249, of the dense model's MACs
    race_rows(summary)[0].is_winner                   # True
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoprune.cost import COSTS, LATENCY
from autoprune.reporting._summary import StudySummary
from autoprune.study import StageRecord, TrialRecord


@dataclass(frozen=True)
class CostRow:
    """One cost of a trial next to the dense model's.

    Attributes:
        cost: its name in COSTS.
        label: its heading.
        value: the trial's.
        dense: the dense model's, or None if it is not known.
        share: `value` over `dense`, or None if that is not known. It is measured for a timed latency.
        limit: the budget as a share of the dense model's cost, or None for a cost that is not limited.
        interval: 95% interval of `share`, of a timed latency.
        met: whether the cost is within the budget, or None without a limit.
    """

    cost: str
    label: str
    value: float
    dense: float | None = None
    share: float | None = None
    limit: float | None = None
    interval: tuple[float, float] | None = None
    met: bool | None = None


def cost_rows(summary: StudySummary, trial: TrialRecord) -> list[CostRow]:
    """Return the costs of a trial. A latency that was timed follows the predicted one."""
    rows = []
    for cost, value in trial.costs.items():
        dense, limit = summary.dense_costs.get(cost), summary.limits.get(cost)
        label = COSTS[cost].label if cost != LATENCY else f"{COSTS[cost].label}, predicted"
        share = None if dense is None else value / dense
        limited = None if dense is None or limit is None else limit / dense
        met = None if limit is None else value <= limit
        rows.append(CostRow(cost, label, value, dense, share, limited, None, met))
        if cost == LATENCY and trial.measured is not None:
            timed = trial.measured
            rows.append(
                CostRow(
                    cost,
                    f"{COSTS[cost].label}, timed",
                    timed.latency_ms,
                    timed.latency_ms / timed.ratio,
                    timed.ratio,
                    limited,
                    timed.ratio_interval,
                    timed.met,
                )
            )
    return rows


@dataclass(frozen=True)
class RaceRow:
    """One entrant of a race.

    Attributes:
        number: of its trial.
        stages: its score after each stage, or None for a stage that it did not reach.
        origin: who proposed the trial.
        failure: why it left the race, or None.
        is_winner: whether it won.
    """

    number: int
    stages: tuple[StageRecord | None, ...]
    origin: str
    failure: str | None
    is_winner: bool


def race_rows(summary: StudySummary) -> list[RaceRow]:
    """Return the entrants of a race, the winner first, then by how far and how well they trained."""
    race = summary.race
    if race is None:
        return []
    origins = {record.number: record.origin for record in summary.records}
    rows = [
        RaceRow(
            number,
            tuple(race.stage(number, end) for end in race.result.ends),
            origins.get(number, ""),
            race.failure(number),
            number == race.result.winner,
        )
        for number in race.entries
    ]

    def rank(row: RaceRow) -> tuple[float, ...]:
        reached = [stage for stage in row.stages if stage is not None]
        return (not row.is_winner, -len(reached), -reached[-1].score if reached else 0.0)

    return sorted(rows, key=rank)


@dataclass(frozen=True)
class WidthRow:
    """The width of a group in a trial, and in the dense model if it is known."""

    group: str
    width: int
    dense: int | None


def width_rows(summary: StudySummary, trial: TrialRecord | None) -> list[WidthRow]:
    """Return the widths of a trial in the groups that are searched, in the order of the model."""
    widths = trial.widths if trial is not None else {}
    return [
        WidthRow(group, widths[group], summary.dense_widths.get(group))
        for group in summary.dense_widths or widths
        if group in widths
    ]


def listed(summary: StudySummary) -> list[TrialRecord]:
    """Return the trials of a table: those with a score, the best first, then those that failed before one."""
    failed = [record for record in summary.records if record.state == "failed" and record.score is None]
    return [*summary.ranked(), *failed]


def outcome(record: TrialRecord) -> str:
    """Return how a trial ended: "complete, as trial 3", "pruned at calibrate", "failed after calibrate"."""
    reused = f", as trial {record.reused}" if record.reused is not None else ""
    after = ""
    if record.scores and (record.pruned or record.state == "failed"):
        after = f" {'at' if record.pruned else 'after'} {record.scores[-1].name}"
    return f"{record.state}{after}{reused}"


def counted(summary: StudySummary) -> str:
    """Return the number of trials of each state: "18 complete, 2 pruned"."""
    return ", ".join(f"{count} {word}" for word, count in summary.counts().items()) or "no trials"


def shares(summary: StudySummary, record: TrialRecord | None) -> Sequence[float]:
    """Return a trial's share of each shown cost, or those of the dense model for None."""
    if record is None:
        return [1.0] * len(summary.shown_costs)
    return [summary.share(record, cost) for cost in summary.shown_costs]
