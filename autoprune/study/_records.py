"""Own the record of one trial: what was tried, what it cost, how it scored, and how it ended.

Before: `engines` write the attributes below as a trial runs; after: reports and the score cache read them.

    record = read_record(study.trials[3])
    record.widths, record.score, record.scores[-1].name
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from autoprune.config.rungs import RungScore
from autoprune.errors import StudyError
from autoprune.graph import COSTS
from autoprune.samplers import ENDED_BEFORE, OUTCOME
from autoprune.study._trial_attributes import ORIGIN, PROPOSAL, OutcomeAttribute, read_attributes
from autoprune.support.schema import read_as

State = Literal["waiting", "running", "complete", "pruned", "failed"]

_STATES: Mapping[TrialState, State] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}

_ENDED = (TrialState.COMPLETE, TrialState.PRUNED)

LATENCY = "latency_ms"
"""The one cost that is predicted, and of some trials measured."""


@dataclass(frozen=True)
class MeasuredLatency:
    """What a finalist's rebuilt model took on the device, timed in turn with the dense model.

    Attributes:
        latency_ms: median of one forward pass.
        interval_ms: its 95% confidence interval.
        ratio: median share of the dense model's time.
        ratio_interval: its 95% confidence interval.
        met: whether that keeps to the budget, in the words in which it was asked (milliseconds or a share);
            None where latency is minimised without a limit.
        surely: whether the interval lies wholly on that side of the budget; None where there is none.
    """

    latency_ms: float
    interval_ms: tuple[float, float]
    ratio: float
    ratio_interval: tuple[float, float]
    met: bool | None
    surely: bool | None = None

    @property
    def keeps_surely(self) -> bool:
        """Whether the whole interval keeps to the budget, or there is none to keep to."""
        return self.met is not False and self.surely is not False

    @classmethod
    def from_json(cls, values: Any, *, where: str = "measured latency") -> MeasuredLatency:
        """Read the values of `dataclasses.asdict` as a storage kept them.

        Raises:
            StudyError: it is damaged; `where` opens the message.
        """
        return read_as(cls, values, where=where, error=StudyError, advice="restore the storage from a copy.")


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the storage holds it; what is not known yet is None or empty.

    Attributes:
        number: the trial's number, from 0 on.
        state: how far it came.
        value: the score that the storage holds: of the last rung that it climbed.
        scores: the rungs that it climbed, in order.
        ratios: the proposed keep ratio of each variable, and the share of the budget where that is searched.
        widths: the width of each of the model's groups.
        costs: of the candidate, by name: "macs", "params" and whatever else was known of it.
        seed: the seed that its score was computed with.
        seconds: wall time of scoring.
        device: where it was scored.
        origin: "sampler", or the name of the heuristic that it started from.
        reused: number of the trial with the same widths whose scores it took, or None.
        failure: why it failed, or None.
        measured: its latency on the device, of a finalist where latency is limited; else None.
    """

    number: int
    state: State
    value: float | None
    scores: tuple[RungScore, ...]
    ratios: Mapping[str, float]
    widths: Mapping[str, int]
    costs: Mapping[str, float]
    seed: int | None
    seconds: float | None
    device: str | None
    origin: str
    reused: int | None
    failure: str | None
    measured: MeasuredLatency | None = None

    @property
    def score(self) -> float | None:
        """The score of the last rung that the trial climbed."""
        return self.scores[-1].score if self.scores else None

    @property
    def pruned(self) -> bool:
        """Whether the trial was pruned before the last rung."""
        return self.state == "pruned"

    @property
    def macs(self) -> float | None:
        """Multiply-adds of the candidate."""
        return self.costs.get("macs")

    @property
    def params(self) -> float | None:
        """Parameters of the candidate."""
        return self.costs.get("params")

    @property
    def has_ended(self) -> bool:
        """Whether the trial has a verdict, be it that it failed."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def is_whole(self) -> bool:
        """Whether the trial climbed every rung of a candidate of ours."""
        return self.state == "complete" and bool(self.widths and self.scores)


def cost_of(record: TrialRecord, name: str, dense_ms: float | None = None) -> float:
    """Return what a trial costs, its latency as it was measured where it was timed.

    Args:
        record: of the trial.
        name: of the cost, as in `record.costs`.
        dense_ms: the dense model's latency that predictions rest on. With it a measured latency is what the
            measured share makes of it, so that it can stand beside predictions whatever the machine's speed.

    Returns:
        The cost; infinite where it is not known.
    """
    if name == LATENCY and record.measured is not None:
        measured = record.measured
        return measured.latency_ms if dense_ms is None else measured.ratio * dense_ms
    return record.costs.get(name, math.inf)


def took_scores(trial: FrozenTrial) -> bool:
    """Tell whether a trial took the scores of another with its widths: it is no second measurement."""
    return trial.user_attrs.get(OUTCOME, {}).get("reused") is not None


def proposal_attributes(
    widths: Mapping[str, int], costs: Mapping[str, float], *, seed: int, device: str, origin: str
) -> dict[str, Any]:
    """Return the attributes that are stored with a trial as soon as its widths are known.

    This package reads back PROPOSAL and the origin. The other flat values are for people who sort trials in
    Optuna's dashboard or data frame.
    """
    proposal = {"widths": dict(widths), **costs, "seed": seed, "device": device}
    return {**costs, ORIGIN: origin, PROPOSAL: proposal}


def outcome_attributes(
    seconds: float, ended_before: int, *, reused: int | None = None, failure: str | None = None
) -> dict[str, Any]:
    """Return the attributes that are stored as a trial ends: OUTCOME, and flat values for people."""
    flat = {"seconds": seconds} if failure is None else {"seconds": seconds, "failure": failure}
    known = {"seconds": seconds, ENDED_BEFORE: ended_before, "reused": reused, "failure": failure}
    return {**flat, OUTCOME: known}


def read_record(
    trial: FrozenTrial, measured: MeasuredLatency | None = None, *, objectives: int = 1
) -> TrialRecord:
    """Read the record of a trial; trials that others added have only what Optuna keeps.

    Args:
        trial: as the storage has it.
        measured: what the study notes beside it, since a trial that has ended takes no more attributes.
        objectives: how many values a complete trial has.

    Raises:
        StudyError: the trial is damaged.
    """
    attributes = read_attributes(trial, objectives)
    proposal = attributes.proposal
    outcome = attributes.outcome if trial.state.is_finished() else OutcomeAttribute()
    costs = {} if proposal is None else {name: getattr(proposal, name) for name in COSTS}
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        value=trial.values[0] if trial.values and trial.state in _ENDED else None,
        scores=tuple(
            RungScore(score.index, score.name, score.score, score.seconds) for score in attributes.scores
        ),
        ratios={name: float(value) for name, value in trial.params.items() if isinstance(value, float)},
        widths={} if proposal is None else dict(proposal.widths),
        costs={name: cost for name, cost in costs.items() if cost is not None},
        seed=None if proposal is None else proposal.seed,
        seconds=outcome.seconds,
        device=None if proposal is None else proposal.device,
        origin=attributes.origin,
        reused=outcome.reused,
        failure=outcome.failure,
        measured=measured,
    )
