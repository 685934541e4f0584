"""The record of one trial: its widths, costs, scores and outcome.

Example:
    record = read_record(study.trials[3])
    record.widths, record.score, record.scores[-1].name
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from optuna.trial import FrozenTrial, TrialState

from autoprune.config.rungs import RungScore
from autoprune.cost import LATENCY
from autoprune.errors import StudyError
from autoprune.samplers import OUTCOME, fact_of
from autoprune.space import Candidate
from autoprune.study._trial_attributes import ORIGIN, SAMPLER, OutcomeAttribute, read_attributes
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


@dataclass(frozen=True)
class MeasuredLatency:
    """The latency of a finalist's rebuilt model, measured on the device side by side with the dense model.

    Attributes:
        latency_ms: median of one forward pass.
        interval_ms: 95% confidence interval of `latency_ms`.
        ratio: median of the latency over the dense model's.
        ratio_interval: 95% confidence interval of `ratio`.
        met: whether the median is within the budget, which is in milliseconds or a share of the dense model's
            latency, or None if latency is minimised without a limit.
        surely: whether the whole interval is on the same side of the budget as the median, or None if there
            is no limit.
    """

    latency_ms: float
    interval_ms: tuple[float, float]
    ratio: float
    ratio_interval: tuple[float, float]
    met: bool | None
    surely: bool | None = None

    @property
    def keeps_surely(self) -> bool:
        """Whether the whole interval is within the budget, or there is no limit."""
        return self.met is not False and self.surely is not False

    @classmethod
    def from_json(cls, values: Any, *, where: str = "measured latency") -> MeasuredLatency:
        """Read the values of `dataclasses.asdict` from a storage.

        Raises:
            StudyError: they are damaged. The message begins with `where`.
        """
        return read_as(cls, values, where=where, error=StudyError, advice="Restore the storage from a copy.")


@dataclass(frozen=True)
class TrialRecord:
    """One trial in the storage. Values that are not known yet are None or empty.

    Attributes:
        number: the trial's number, from 0 on.
        state: of the trial.
        value: the value of the first objective in the storage.
        scores: the rungs that it climbed, in order.
        ratios: the proposed keep ratio of each variable, and the share of the budget if that is searched.
        widths: {group: width} of all groups of the model.
        costs: {cost: amount} of the candidate: "macs", "params" and the others that were known.
        seed: of its score.
        seconds: wall time of scoring.
        device: that scored it.
        origin: "sampler", or the names of the heuristics that proposed it as a warm start.
        reused: number of the trial with the same widths whose scores it took, or None if it took none.
        failure: reason of a failed trial, else None.
        measured: measured latency of a finalist, else None.
        criteria: {group: the criterion that ranked it} of narrowed groups, if the search chooses criteria.
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
    criteria: Mapping[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """The score of the last rung that the trial climbed."""
        return self.scores[-1].score if self.scores else None

    @property
    def error(self) -> float | None:
        """The standard error of `score`, if it is known."""
        return self.scores[-1].error if self.scores else None

    @property
    def candidate(self) -> Candidate:
        """The widths and the criteria of the trial, as a scorer takes them."""
        return Candidate(self.widths.items(), self.criteria)

    @property
    def is_warm_start(self) -> bool:
        """Whether a heuristic proposed the trial, rather than the sampler."""
        return self.origin != SAMPLER

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

    def cost(self, name: str, dense_ms: float | None = None) -> float:
        """Return a cost of the trial. A measured latency takes precedence over a predicted one.

        Args:
            name: of the cost, as in `costs`.
            dense_ms: latency of the dense model that predictions rest on. If it is given, a measured latency
                is this latency times the measured ratio, which compares with predictions at any speed of the
                device.

        Returns:
            The cost, or infinity if it is not known.
        """
        if name == LATENCY and self.measured is not None:
            return self.measured.latency_ms if dense_ms is None else self.measured.ratio * dense_ms
        return self.costs.get(name, math.inf)

    @property
    def was_over_limit(self) -> bool:
        """Whether the trial was measured to be over the latency budget of its search."""
        return self.measured is not None and self.measured.met is False

    @property
    def has_ended(self) -> bool:
        """Whether the trial is complete, pruned or failed."""
        return self.state in ("complete", "pruned", "failed")

    @property
    def is_whole(self) -> bool:
        """Whether the trial climbed every rung, and was run by autoprune."""
        return self.state == "complete" and bool(self.widths and self.scores)


def is_warm_start(trial: FrozenTrial) -> bool:
    """Return whether a trial was queued with an origin, rather than proposed by the sampler."""
    return bool(trial.user_attrs.get(ORIGIN, SAMPLER) != SAMPLER)


def took_scores(trial: FrozenTrial) -> bool:
    """Return whether a trial took the scores of another trial with its widths, and was not scored itself."""
    return fact_of(trial, OUTCOME, {}).get("reused") is not None


def proposal_fact(widths: Candidate, costs: Mapping[str, float], *, seed: int, device: str) -> dict[str, Any]:
    """Return the fact to store with a trial as soon as its widths are known."""
    proposal = {"widths": dict(widths), **costs, "seed": seed, "device": device}
    if widths.criteria:
        proposal["criteria"] = widths.criteria
    return proposal


def read_record(
    trial: FrozenTrial, measured: MeasuredLatency | None = None, *, objectives: int = 1
) -> TrialRecord:
    """Read the record of a trial. Trials that other programs added have only the values that Optuna stores.

    Args:
        trial: in the storage.
        measured: its measured latency. The study stores it, since a trial that has ended takes no attributes.
        objectives: number of values of a complete trial.

    Raises:
        StudyError: the trial is damaged.
    """
    attributes = read_attributes(trial, objectives)
    proposal = attributes.proposal
    outcome = attributes.outcome if trial.state.is_finished() else OutcomeAttribute()
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        value=trial.values[0] if trial.values and trial.state in _ENDED else None,
        scores=tuple(
            RungScore(score.index, score.name, score.score, score.seconds, score.error)
            for score in attributes.scores
        ),
        ratios={name: float(value) for name, value in trial.params.items() if isinstance(value, float)},
        widths={} if proposal is None else dict(proposal.widths),
        costs={} if proposal is None else proposal.costs,
        seed=None if proposal is None else proposal.seed,
        seconds=outcome.seconds,
        device=None if proposal is None else proposal.device,
        origin=attributes.origin,
        reused=outcome.reused,
        failure=outcome.failure,
        measured=measured,
        criteria={} if proposal is None else dict(proposal.criteria),
    )
