"""The history of a study as samplers read it: the scores of complete trials, and the plans that were tried.

Example:
    history = read_history(context, study, trial)
    history.outcomes[-1].ratios, history.outcomes[-1].score        # the last to end; a higher score is better

It holds complete trials in the order in which they finished, so that every process reads the same sequence.
The study counts them, since the clocks of machines differ. Trials that a user added come first, by the clock.
Failed trials appear as complete ones (see `_failed_trials`). So do pruned trials, unless the sampler learns
from these as they are (see `SamplerSpec`).
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autoprune.samplers._attributes import fact_of
from autoprune.samplers._context import SamplerContext
from autoprune.support.arrays import FloatArray, IntArray

OUTCOME, ENDED_BEFORE = "outcome", "ended_before"
"""The fact with the outcome of a trial, and its key for the number of trials that ended before."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A complete trial: the plan that was scored, and its score.

    Attributes:
        ratios: float64 [k], the ratios of the widths to which the proposal decoded.
        score: higher is better, whatever the study's direction.
    """

    ratios: FloatArray
    score: float


@dataclass(frozen=True, eq=False)
class History:
    """The trials that a sampler learns from.

    Attributes:
        outcomes: of the complete trials, in the order in which they finished.
        seen: the plans of all trials that finished, or that started before the trial that is proposed.
    """

    outcomes: tuple[Outcome, ...]
    seen: frozenset[bytes]


def read_history(context: SamplerContext, study: optuna.Study, trial: FrozenTrial) -> History:
    """Read the history that a proposal may depend on.

    The study has one objective (see `check_sampler`).
    """
    tried = _tried(context, study, trial)
    plans = _plans(context, tried)
    sign = 1.0 if study.direction == StudyDirection.MAXIMIZE else -1.0
    complete = sorted((each for each in tried if each.state == TrialState.COMPLETE), key=place_of_end)
    outcomes = tuple(
        Outcome(plans[each.number], sign * each.values[0])
        for each in complete
        if math.isfinite(each.values[0])
    )
    return History(outcomes, frozenset(plan.tobytes() for plan in plans.values()))


def plans_tried(context: SamplerContext, study: optuna.Study, trial: FrozenTrial) -> frozenset[bytes]:
    """Return the plans of all trials that finished, or that started before the trial that is proposed."""
    return frozenset(plan.tobytes() for plan in _plans(context, _tried(context, study, trial)).values())


def places(context: SamplerContext, ratios: FloatArray) -> FloatArray:
    """Return the places of ratios [..., k] in their ranges, from 0 (lowest) to 1 (highest)."""
    ladder = context.space.ladder
    where: FloatArray = (ratios - ladder.low) / (ladder.high - ladder.low)
    return where


def ratios_at(context: SamplerContext, where: FloatArray) -> FloatArray:
    """Return the ratios [..., k] at places in [0, 1]."""
    ladder = context.space.ladder
    ratios: FloatArray = ladder.low + np.clip(where, 0.0, 1.0) * (ladder.high - ladder.low)
    return ratios


def levels_of(context: SamplerContext, ratios: FloatArray) -> IntArray:
    """Return the level [k] of each ratio [k]."""
    levels: IntArray = context.space.ladder.of_ratios(ratios[None])[0]
    return levels


def place_of_end(trial: FrozenTrial) -> tuple[int, datetime.datetime, int]:
    """Return the sort key of a trial's end: as the study counted ends, or by the clock if it did not."""
    ended_before = int(fact_of(trial, OUTCOME, {}).get(ENDED_BEFORE, -1))
    clock = trial.datetime_complete if ended_before < 0 else None
    return ended_before, clock or datetime.datetime.min, trial.number


def _tried(context: SamplerContext, study: optuna.Study, trial: FrozenTrial) -> list[FrozenTrial]:
    """Return the trials with all variables that finished, or that started before the one that is proposed."""
    names = {variable.name for variable in context.space.variables}
    trials = [each for each in study.get_trials(deepcopy=False) if names <= each.params.keys()]
    return [each for each in trials if each.state.is_finished() or each.number < trial.number]


def _plans(context: SamplerContext, trials: list[FrozenTrial]) -> dict[int, FloatArray]:
    """Return {number: ratios of the plan to which a trial decodes}. They are cached: a plan never changes."""
    names = [variable.name for variable in context.space.variables]
    known: dict[tuple[float, ...], FloatArray] = context.memory.setdefault("plans", {})
    proposals = {trial.number: tuple(trial.params[name] for name in names) for trial in trials}
    new = [proposal for proposal in dict.fromkeys(proposals.values()) if proposal not in known]
    if new:
        known.update(zip(new, feasible(context, np.array(new, dtype=np.float64)), strict=True))
    return {number: known[proposal] for number, proposal in proposals.items()}


def feasible(context: SamplerContext, ratios: FloatArray) -> FloatArray:
    """Return the ratios [..., k] of the plans to which ratios [..., k] decode. Those are fixed points."""
    return context.space.settle(ratios)
