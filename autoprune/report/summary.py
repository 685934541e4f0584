"""A study in numbers: its trials, its best, what the dense model costs and scores, how well rungs agree.

Before: `study`; after: `report.tables` and `report.plot` draw it.

    summary = summarise(open_study("sqlite:///runs/digits.db", "digits"))
    summary.best.score, summary.macs_share(summary.best)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.errors import StudyError
from autoprune.report.agreement import RungAgreement, agreements
from autoprune.rungs import asks_for_supernet
from autoprune.study import SearchStudy, TrialRecord


@dataclass(frozen=True)
class Failure:
    """Why trials failed, and the numbers of those that did so for this reason."""

    reason: str
    trials: tuple[int, ...]


@dataclass(frozen=True)
class StudySummary:
    """A study at one moment.

    Attributes:
        study: its name.
        metric: name of the score.
        rungs: names of the rungs that a trial climbs; its score is the metric after the last one.
        records: all trials, by number.
        best: the best complete trial; None before the first.
        dense_macs: of the dense model.
        dense_params: of the dense model.
        dense_score: the dense model's on the validation part.
        dense_widths: of the groups that are searched, which frozen ones are not.
        budget_macs: the limit, or None.
        budget_params: the limit, or None.
        agreements: between neighbouring rungs, then the first and the last, where enough trials climbed both.
    """

    study: str
    metric: str
    rungs: tuple[str, ...]
    records: tuple[TrialRecord, ...]
    best: TrialRecord | None
    dense_macs: int
    dense_params: int
    dense_score: float
    dense_widths: Mapping[str, int]
    budget_macs: int | None
    budget_params: int | None
    agreements: tuple[RungAgreement, ...]

    @property
    def by_supernet(self) -> bool:
        """Whether candidates were cut from a supernet's weights, so that the best needs no finetune."""
        return asks_for_supernet(self.rungs)

    def macs_share(self, record: TrialRecord) -> float:
        """Return a trial's MACs over the dense model's; NaN where it has none yet."""
        return math.nan if record.macs is None else record.macs / self.dense_macs

    def params_share(self, record: TrialRecord) -> float:
        """Return a trial's parameters over the dense model's; NaN where it has none yet."""
        return math.nan if record.params is None else record.params / self.dense_params

    def ranked(self) -> list[TrialRecord]:
        """Return the trials with a score, complete ones first, the best first among equals in that."""
        scored = [record for record in self.records if record.score is not None]
        return sorted(
            scored,
            key=lambda record: (record.stopped or record.state != "complete", -(record.score or 0.0)),
        )

    def failures(self) -> list[Failure]:
        """Return why trials failed, the most frequent reason first."""
        numbers: dict[str, list[int]] = {}
        for record in self.records:
            if record.state == "failed":
                numbers.setdefault(record.failure or "unknown", []).append(record.number)
        found = [Failure(reason, tuple(trials)) for reason, trials in numbers.items()]
        return sorted(found, key=lambda failure: -len(failure.trials))

    def counts(self) -> dict[str, int]:
        """Return how many trials ended how: {"complete": 18, "stopped": 2, ...}."""
        found: dict[str, int] = {}
        for record in self.records:
            word = outcome(record)
            found[word] = found.get(word, 0) + 1
        return found


def outcome(record: TrialRecord) -> str:
    """Name how a trial ended, or how far it is: "complete", "stopped", "failed", "running" or "waiting"."""
    return "stopped" if record.stopped or record.state == "pruned" else record.state


def summarise(study: SearchStudy) -> StudySummary:
    """Read a study."""
    records = tuple(study.records())
    try:
        best = study.best()
    except StudyError:
        best = None
    chosen = study.chosen
    return StudySummary(
        study=study.name,
        metric=str(study.config["task"]["metric"]),
        rungs=tuple(study.config["score"]["rungs"]),
        records=records,
        best=best,
        dense_macs=int(chosen["dense_macs"]),
        dense_params=int(chosen["dense_params"]),
        dense_score=float(chosen["dense_score"]),
        dense_widths=dict(chosen.get("dense_widths", {})),
        budget_macs=chosen["budget_macs"],
        budget_params=chosen["budget_params"],
        agreements=agreements(records),
    )
