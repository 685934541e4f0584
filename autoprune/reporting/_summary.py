"""Summarise a study: its trials, its best one, the dense model's costs and score, the agreement of rungs.

Example:
    summary = summarise(open_study("sqlite:///runs/digits.db", "digits"))
    summary.best.score, summary.macs_share(summary.best)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from autoprune.config.rungs import scores_the_export, uses_supernet
from autoprune.errors import StudyError
from autoprune.reporting._agreement import RungAgreement, agreements
from autoprune.reporting._insights import enough_trials, group_importances
from autoprune.reporting._verdict import Verdict, verdict_of
from autoprune.study import Race, SearchStudy, StrengthFacts, TrialRecord
from autoprune.support.schema import Strict, read_as


@dataclass(frozen=True)
class Failure:
    """A reason of failures, and the numbers of the trials that failed for it."""

    reason: str
    trials: tuple[int, ...]


@dataclass(frozen=True)
class StudySummary:
    """A study at one moment.

    Attributes:
        study: name of the study.
        metric: name of the score.
        rungs: names of the rungs. The score of a trial is the metric after the last one.
        records: all trials, ordered by number.
        best: the winner of the race, or before a race the best complete trial. None if none is complete.
        objectives: "score", then the costs that are minimised.
        front: trials of the Pareto front, the cheapest first, or empty with one objective.
        dense_costs: {cost: the dense model's}.
        dense_score: score of the dense model on the validation part.
        dense_widths: {group: full width} of the groups that are searched.
        limits: {cost: its limit}.
        agreements: of neighbouring rungs, then of the first and the last, if enough trials have both scores.
        dense_error: standard error of `dense_score`, or None if it is not known.
        race: the race of the best trials, or None if there was none.
        importances: {keep ratio: its share of the variance of the scores}, the largest first, or empty if
            they are not known.
        smallest: the cost that is made small within a tolerance, or None for a search without one.
        least_score: the smallest score within that tolerance.
        strengths: strengths of a penalty that were tried before the search, the best first.
    """

    study: str
    metric: str
    rungs: tuple[str, ...]
    records: tuple[TrialRecord, ...]
    best: TrialRecord | None
    objectives: tuple[str, ...]
    front: tuple[TrialRecord, ...]
    dense_costs: Mapping[str, float]
    dense_score: float
    dense_widths: Mapping[str, int]
    limits: Mapping[str, float]
    agreements: tuple[RungAgreement, ...]
    dense_error: float | None = None
    race: Race | None = None
    importances: Mapping[str, float] = field(default_factory=dict)
    smallest: str | None = None
    least_score: float | None = None
    strengths: tuple[StrengthFacts, ...] = ()

    @cached_property
    def verdict(self) -> Verdict | None:
        """The comparison of the winner with uniform, or None without a race."""
        return None if self.race is None else verdict_of(self.race, self.study)

    @property
    def enough_trials(self) -> int | None:
        """After how many trials the best score was within its standard error of the final one, or None.

        It is None if the search has a tolerance, because scores of different budgets cannot be compared.
        """
        return enough_trials(self.records) if self.smallest is None else None

    @property
    def by_supernet(self) -> bool:
        """Whether the candidates' weights are slices of a supernet's."""
        return uses_supernet(self.rungs)

    @property
    def is_export_as_scored(self) -> bool:
        """Whether the best trial can be exported without a finetune."""
        return scores_the_export(self.rungs)

    @property
    def shown_costs(self) -> tuple[str, ...]:
        """Names of the costs in tables: MACs, parameters, and all that are minimised or limited."""
        return tuple(dict.fromkeys(("macs", "params", *self.objectives[1:], *self.limits)))

    def share(self, record: TrialRecord, cost: str) -> float:
        """Return a trial's cost over the dense model's, measured if possible, or NaN if it is not known."""
        whole = self.dense_costs.get(cost, math.nan)
        share = record.cost(cost, whole) / whole
        return share if math.isfinite(share) else math.nan

    def macs_share(self, record: TrialRecord) -> float:
        """Return a trial's MACs over the dense model's, or NaN if it has none yet."""
        return self.share(record, "macs")

    def is_within(self, record: TrialRecord) -> bool:
        """Return whether a complete trial is within the tolerance of the search."""
        least = self.least_score
        return least is not None and record.is_whole and record.score is not None and record.score >= least

    def ranked(self) -> list[TrialRecord]:
        """Return the trials with a score: complete trials first, then the others, the best first in each.

        If the search has a tolerance, the trials within it come first, the smallest one first.
        """
        scored = [record for record in self.records if record.score is not None]

        def rank(record: TrialRecord) -> tuple[bool, bool, float]:
            is_small = self.smallest is not None and self.is_within(record)
            amount = (
                self.share(record, self.smallest) if is_small and self.smallest else -(record.score or 0.0)
            )
            return record.state != "complete", not is_small, amount

        return sorted(scored, key=rank)

    def failures(self) -> list[Failure]:
        """Return the reasons for which trials failed, the most frequent first."""
        numbers: dict[str, list[int]] = {}
        for record in self.records:
            if record.state == "failed":
                numbers.setdefault(record.failure or "unknown", []).append(record.number)
        found = [Failure(reason, tuple(trials)) for reason, trials in numbers.items()]
        return sorted(found, key=lambda failure: -len(failure.trials))

    def counts(self) -> dict[str, int]:
        """Return {state: number of trials}, such as {"complete": 18, "pruned": 2}."""
        found: dict[str, int] = {}
        for record in self.records:
            found[record.state] = found.get(record.state, 0) + 1
        return found


class _Task(Strict):
    metric: str


class _Score(Strict):
    rungs: list[str]


class _Config(Strict):
    """The keys of a study's config that a summary shows."""

    task: _Task
    score: _Score


_ADVICE = "Restore the storage from a copy."


def summarise(study: SearchStudy, *, with_importances: bool = False) -> StudySummary:
    """Read a study and summarise it.

    Args:
        study: the study.
        with_importances: whether to compute which groups matter, which takes seconds.

    Raises:
        StudyError: the study's header is damaged.
    """
    where = f"{study.name}: its header is damaged: config"
    shown = read_as(_Config, study.config, where=where, error=StudyError, advice=_ADVICE)
    records = tuple(study.records())
    try:  # a study without complete trials has no best one, and can still be reported
        best = study.best()
    except StudyError:
        best = None
    several = len(study.objectives) > 1
    return StudySummary(
        study=study.name,
        metric=shown.task.metric,
        rungs=tuple(shown.score.rungs),
        records=records,
        best=best,
        objectives=study.objectives,
        front=tuple(study.front(records)) if several else (),
        dense_costs=study.facts.dense_costs,
        dense_score=study.facts.dense_score,
        dense_widths=study.facts.dense_widths,
        limits=study.facts.limits,
        agreements=agreements(records),
        dense_error=study.facts.dense_error,
        race=study.race(),
        importances=group_importances(study) if with_importances else {},
        smallest=None if study.facts.tolerance is None else study.facts.tolerance.cost,
        least_score=study.least_score,
        strengths=tuple(sorted(study.facts.strengths, key=lambda each: (-each.cut_score, each.strength))),
    )
