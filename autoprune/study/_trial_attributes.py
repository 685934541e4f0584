"""The schema of a trial's attributes, which are checked once, as the trial is read.

Example:
    attributes = read_attributes(trial, objectives=1)
    attributes.proposal.widths, attributes.scores[-1].name
"""

from __future__ import annotations

import math
from typing import Annotated, Any

from optuna.trial import FrozenTrial, TrialState
from pydantic import AfterValidator, Field

from autoprune.cost import COSTS
from autoprune.errors import StudyError
from autoprune.graph.blocks import SUFFIX
from autoprune.samplers import ENDED_BEFORE, OUTCOME, PLANNED, PROPOSED, QUEUED, SCORES, fact_of, has_fact
from autoprune.samplers.cmaes import START
from autoprune.support.schema import Strict, read_as

ORIGIN = "origin"
"""The user attribute of a trial that names who proposed it."""

PROPOSAL, LEASE, INTERRUPTIONS, DEATHS = "proposal", "lease", "interruptions", "deaths"
FACTS = (PROPOSAL, LEASE, INTERRUPTIONS, DEATHS, SCORES, OUTCOME)
"""The facts of a trial (see `fact_of`). To store one is a commit, which takes milliseconds."""

SAMPLER = "sampler"
"""The origin of a trial that was not queued: its sampler proposed it."""

_ADVICE = "It is left out"

Count = Annotated[int, Field(ge=0, lt=2**31)]
Amount = Annotated[int | float, Field(ge=0, lt=1e30)]
Seconds = Annotated[float, Field(ge=0, lt=1e12)]
Word = Annotated[str, Field(max_length=500)]


def _none_empty(widths: dict[str, int]) -> dict[str, int]:
    """Refuse a channel group without channels. Only a block may have the width 0, which drops it."""
    for name, width in widths.items():
        if width == 0 and not name.endswith(SUFFIX):
            raise ValueError(f"{name} has a width above 0")
    return widths


Widths = Annotated[dict[Word, Count], AfterValidator(_none_empty)]
"""{group or block: width}."""


class ProposalAttribute(Strict):
    """The candidate of a trial: its widths and criteria, their costs, its seed and its device."""

    widths: Widths
    criteria: dict[Word, Word] = Field(default_factory=dict)
    seed: Annotated[int, Field(ge=0, lt=2**64)] | None = None
    device: Word | None = None

    @property
    def costs(self) -> dict[str, float]:
        """The costs that are known, by name. They are stored next to the widths, one key each."""
        known = self.model_extra or {}
        return {name: known[name] for name in COSTS if known.get(name) is not None}


class ScoreAttribute(Strict):
    """One rung that a trial climbed."""

    index: Count
    name: Word
    score: float
    seconds: Seconds
    error: Annotated[float, Field(ge=0)] | None = None


class OutcomeAttribute(Strict):
    """How a trial ended.

    `stopped` is of the earlier layout, which could store a pruned trial as complete, with an imputed value.
    """

    seconds: Seconds | None = None
    ended_before: Annotated[int, Field(ge=-1, lt=2**31)] = -1
    reused: Count | None = None
    failure: str | None = None
    stopped: bool = False


class LeaseAttribute(Strict):
    """The process that runs a trial: see `Lease`."""

    host: Word
    pid: Annotated[int, Field(gt=0, lt=2**31)]
    started: Word
    claim: Word = ""


class TrialAttributes(Strict):
    """The facts and the origin of a trial that autoprune stores."""

    proposal: ProposalAttribute | None = None
    scores: list[ScoreAttribute] = Field(default_factory=list)
    outcome: OutcomeAttribute = OutcomeAttribute()
    origin: Word = SAMPLER
    lease: LeaseAttribute | None = None
    interruptions: Count = 0
    deaths: Count = 0


class _SamplerAttributes(Strict):
    """The system attributes of a trial that samplers read."""

    proposed: list[float] | None = None
    start: dict[str, float] | None = None
    queued: dict[str, Any] | None = None
    planned: Annotated[list[str | int], Field(min_length=2, max_length=2)] | None = None


def read_attributes(trial: FrozenTrial, objectives: int) -> TrialAttributes:
    """Return the attributes of a trial.

    Args:
        trial: in the storage.
        objectives: number of values of a complete trial.

    Raises:
        StudyError: the trial is damaged. The message names the trial and the first wrong value.
    """
    where = f"trial {trial.number}"
    known = {name: fact_of(trial, name) for name in FACTS if has_fact(trial, name)}
    if ORIGIN in trial.user_attrs:
        known[ORIGIN] = trial.user_attrs[ORIGIN]
    attributes: TrialAttributes = _read(TrialAttributes, known, where)
    for name, cost in attributes.proposal.costs.items() if attributes.proposal else ():
        _read(Amount, cost, f"{where}: {PROPOSAL}.{name}")
    kept = {"proposed": PROPOSED, "start": START, "queued": QUEUED, "planned": PLANNED}
    of_samplers = {name: trial.system_attrs.get(key) for name, key in kept.items()}
    _read(_SamplerAttributes, of_samplers, where)
    # Optuna's samplers use these without a check: NSGA-II a number, CMA-ES its state as hexadecimal text.
    for key, value in trial.system_attrs.items():
        if key.endswith(":generation"):
            _read(Count, value, f"{where}: {key}")
        elif ":relative_params" in key or ":optimizer" in key:
            _read(str, value, f"{where}: {key}")
    problem = _inconsistency(trial, attributes, objectives)
    if problem:
        raise StudyError(f"{where}: {problem}. {_ADVICE}")
    return attributes


def _read(kind: Any, values: Any, where: str) -> Any:
    return read_as(kind, values, where=where, error=StudyError, advice=_ADVICE)


def _inconsistency(trial: FrozenTrial, attributes: TrialAttributes, objectives: int) -> str:
    """Return a description of values that contradict each other, or "" if none do."""
    indices = [score.index for score in attributes.scores]
    if indices != list(range(len(indices))):
        return f"scores: got rungs {indices[:5]}, expected 0, 1 and so on"
    # Trials of other programs have no proposal. They may have infinite values and no scores.
    by_autoprune = attributes.proposal is not None
    if trial.state == TrialState.COMPLETE:
        values = trial.values or []
        if len(values) != objectives or any(math.isnan(value) for value in values):
            return f"values: got {values[:5]}, expected {objectives}"
        if by_autoprune and not all(map(math.isfinite, values)):
            return f"values: got {values}, expected finite numbers"
    if by_autoprune and trial.state in (TrialState.COMPLETE, TrialState.PRUNED):
        if not attributes.scores:
            return f"{SCORES} is missing"
        if attributes.outcome.ended_before < 0:
            return f"{OUTCOME}.{ENDED_BEFORE} is missing"
    return ""
