"""Wraps any Optuna sampler so that a proposal depends on the storage, the seed and the trial's number alone.

A resumed search then makes the same proposals as an uninterrupted one, even if some parameters of the running
trial were already stored. For each trial a new inner sampler with its own seed proposes the whole vector at
once. It sees only the trials of this space, since a user may have added others. If another trial has the same
plan already, a plan nearby is proposed, because the same widths have the same score. The vector is stored
before any of its parameters, and a trial that has a vector keeps it.

Example:
    study.sampler = PerTrialSampler(make_tpe, SamplerContext(seed=0, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

import copy
import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import a_kind
from autoprune.samplers._attributes import set_attribute, without_constraints
from autoprune.samplers._context import SamplerContext
from autoprune.samplers._failed_trials import as_worst
from autoprune.samplers._moving_budget import PLANNED, MovingBudget, without_share
from autoprune.samplers._past_trials import feasible, places, plans_tried, ratios_at
from autoprune.samplers._pruned_trials import as_climbed
from autoprune.samplers._spec import SamplerFactory
from autoprune.samplers._study_view import view_study
from autoprune.space import SHARE, Variable
from autoprune.support.arrays import FloatArray
from autoprune.support.rows import guarding

NEARBY = 0.03
"""Standard deviation of step 1 away from a tried plan, as a share of each range. Step n has n times it."""

STEPS_AWAY = 16
"""Number of random steps in search of a new plan. After them, a small space gives its nearest new plan."""

PROPOSED = "autoprune:proposal"
"""The attribute of a trial that holds its proposal, one ratio a variable.

Optuna stores parameters one by one. A trial that was killed between two of them needs the rest of the same
proposal, although other trials may have ended since. The list has no names, so that some 3,000 variables fit
into a column of a database server (see `study._header`).
"""


class PerTrialSampler(BaseSampler):
    """Proposes trial n with an inner sampler that has the seed f(seed, n).

    The inner samplers share the context's memory and nothing else.

    Args:
        make: makes the inner sampler.
        context: of the search. Each trial gets its own seed. The inner sampler does not see trials that lack
            one of the space's variables.
        learns_from_pruned: see `SamplerSpec`.
        name: the sampler's name in the config, for errors of a user's own sampler.
        moving: chooses the share of the budget, which is the first variable of the context's space. The inner
            samplers then propose in the space without it, under the budget of their trial.
    """

    def __init__(
        self,
        make: SamplerFactory,
        context: SamplerContext,
        *,
        learns_from_pruned: bool = True,
        name: str = "",
        moving: MovingBudget | None = None,
    ) -> None:
        self._make = make
        self._context = context
        self._learns_from_pruned = learns_from_pruned
        self._name = name
        self._moving = moving
        self._space = distributions(context.space.variables)

    @property
    def memory(self) -> dict[str, Any]:
        """The caches that the inner samplers keep between trials."""
        return self._context.memory

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the whole space, whatever parameters other trials have."""
        return dict(self._space)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose every variable, in one fixed order. A trial that already has a proposal keeps it."""
        kept: list[float] | None = trial.system_attrs.get(PROPOSED)
        if kept is None or len(kept) != len(self._space):
            proposal = self._propose(study, trial)
            kept = [float(proposal[name]) for name in self._space]
            # Stored before any parameter is, so that a trial that is killed in between keeps its proposal.
            set_attribute(study, trial, PROPOSED, kept)
        return dict(zip(self._space, kept, strict=True))

    def _propose(self, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
        if self._moving is None:
            proposal = self._inner_proposal(study, trial)
            return self._untried(self._own_trials(study), trial, proposal)
        step = self._moving.next(self._all_own(study), trial.number)
        set_attribute(study, trial, PLANNED, step.planned)
        share = {SHARE: float(self._moving.space.shares[step.level])}
        if step.plan is not None:
            ratios = self._context.space.ladder.ratios(step.plan[None])[0]
            return {**dict(zip(self._space, ratios.tolist(), strict=True)), **share}
        proposal = {**share, **self._inner_proposal(study, trial, step.level)}
        return {**self._untried(self._own_trials(study), trial, proposal), **share}

    def _context_at(self, level: int | None) -> SamplerContext:
        """Return the context, or that of one level of a moving budget, which does not have the share.

        A past proposal stands for another plan under another budget, so each level has its own caches.
        """
        if self._moving is None or level is None:
            return self._context
        memory = self._context.memory.setdefault(f"budget {level}", {})
        return replace(self._context, space=self._moving.space.at(level), memory=memory)

    def _inner_proposal(
        self, study: optuna.Study, trial: FrozenTrial, level: int | None = None
    ) -> dict[str, Any]:
        """Return the proposal of the inner sampler."""
        view, context = self._own_trials(study, level), self._context_at(level)
        with guarding(self._name, "search.sampler"):
            return self._proposal_of(self._inner(trial, context), view, trial, context)

    def _proposal_of(
        self, inner: BaseSampler, view: optuna.Study, trial: FrozenTrial, context: SamplerContext
    ) -> dict[str, Any]:
        inner.before_trial(view, trial)
        # Some samplers propose a part of the variables together, or none, and draw the rest one by one.
        together = inner.infer_relative_search_space(view, trial)
        proposal = inner.sample_relative(view, trial, together)
        for variable in context.space.variables:
            if variable.name not in proposal:
                distribution = self._space[variable.name]
                proposal[variable.name] = inner.sample_independent(view, trial, variable.name, distribution)
        return proposal

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter at random that is not of this space."""
        stream = zlib.crc32(param_name.encode())
        inner = RandomSampler(seed=trial_seed(self._context.search_seed, trial.number, stream))
        return inner.sample_independent(study, trial, param_name, param_distribution)

    def after_trial(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        """Let the inner sampler store its notes. It gets the trial as samplers of later trials see it."""
        ended = copy.copy(trial)
        ended.state, ended.values = state, values
        level = None if self._moving is None else self._moving.level_of(trial)
        others = [each for each in self._all_own(study) if each.number != trial.number]
        shown = self._shown(study, [*others, ended], level).get(trial.number, ended)
        with guarding(self._name, "search.sampler"):
            self._inner(trial, self._context_at(level)).after_trial(
                self._own_trials(study, level),
                without_share(without_constraints(trial)),
                shown.state,
                shown.values,
            )

    def make_inner(self, seed: int, context: SamplerContext | None = None) -> BaseSampler:
        """Make an inner sampler. With a moving budget, the context is that of one level, the last by default.

        Raises:
            ConfigError: it does not suit the search, or a user's own function makes no sampler.
        """
        with guarding(self._name, "search.sampler"):
            last = None if self._moving is None else len(self._moving.space.shares) - 1
            inner: object = self._make(replace(context or self._context_at(last), seed=seed))
            if not isinstance(inner, BaseSampler):
                raise TypeError(f"it gave {a_kind(inner)}, expected a sampler of Optuna's")
        return inner

    def _inner(self, trial: FrozenTrial, context: SamplerContext) -> BaseSampler:
        return self.make_inner(trial_seed(self._context.search_seed, trial.number), context)

    def _untried(self, study: optuna.Study, trial: FrozenTrial, proposal: dict[str, Any]) -> dict[str, Any]:
        """Return the proposal if its plan is new, otherwise the ratios of a new plan near it."""
        tried = plans_tried(self._context, study, trial)
        asked = np.array([proposal[name] for name in self._space])
        plan = feasible(self._context, asked)
        if plan.tobytes() not in tried:
            return proposal
        # A stream of its own, because the inner sampler may have drawn from the trial's.
        rng = np.random.default_rng([self._context.search_seed, trial.number, STEPS_AWAY])
        for step in range(1, STEPS_AWAY + 1):
            plan = feasible(self._context, self._moved(asked, NEARBY * step, rng))
            if plan.tobytes() not in tried:
                break
        else:
            plan = self._nearest_untried(asked, tried, otherwise=plan)
        return dict(zip(self._space, plan.tolist(), strict=True))

    def _nearest_untried(
        self, asked: FloatArray, tried: frozenset[bytes], otherwise: FloatArray
    ) -> FloatArray:
        """Return the ratios [k] of the untried plan nearest to a proposal, if the space lists its plans."""
        plans = self._context.space.plans
        if plans is None:
            return otherwise
        new = [plan for plan in self._context.space.encode(plans) if plan.tobytes() not in tried]
        if not new:
            return otherwise
        distances = np.abs(places(self._context, np.array(new)) - places(self._context, asked)).sum(axis=1)
        nearest: FloatArray = new[int(np.argmin(distances))]
        return nearest

    def _moved(self, ratios: FloatArray, spread: float, rng: np.random.Generator) -> FloatArray:
        """Move each ratio [k] by a normal step, reflected at the ends of its range."""
        moved = np.abs(places(self._context, ratios) + rng.normal(0.0, spread, len(ratios)))
        return ratios_at(self._context, np.where(moved > 1, 2 - moved, moved))

    def _own_trials(self, study: optuna.Study, level: int | None = None) -> optuna.Study:
        shown = self._shown(study, self._all_own(study), level)
        return view_study(
            study,
            lambda trial: trial.number in shown and self._is_own(trial),
            shown_as=lambda trial: without_constraints(shown.get(trial.number, trial)),
        )

    def _shown(
        self, study: optuna.Study, own: Sequence[FrozenTrial], level: int | None
    ) -> dict[int, FrozenTrial]:
        """Return {number: the trial as it is shown}. With a level, these are the trials near that budget."""
        if self._moving is not None and level is not None:
            near = self._moving.near(own, level)
            return near | as_worst(study.directions, list(near.values()))
        return {each.number: each for each in own} | self._stand_ins(study, own)

    def _all_own(self, study: optuna.Study) -> list[FrozenTrial]:
        return [trial for trial in study.get_trials(deepcopy=False) if self._is_own(trial)]

    def _stand_ins(self, study: optuna.Study, own: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
        """Return {number: the complete trial that is shown in place of a failed or pruned one}."""
        is_single = len(study.directions) == 1
        pruned = {} if self._learns_from_pruned or not is_single else as_climbed(own, self._context.rungs)
        return pruned | as_worst(study.directions, [pruned.get(trial.number, trial) for trial in own])

    def _is_own(self, trial: FrozenTrial) -> bool:
        """Return whether a trial is of this space. Trials with other ranges would confuse Optuna's samplers.

        A trial that was queued with a ratio that is not finite has no plan, so it is not of this space.
        """
        ratios = [trial.params[name] for name in self._space if name in trial.params]
        if not all(isinstance(ratio, int | float) and math.isfinite(ratio) for ratio in ratios):
            return False
        return not trial.state.is_finished() or all(
            trial.distributions.get(name) == distribution for name, distribution in self._space.items()
        )


def distributions(variables: Iterable[Variable]) -> dict[str, FloatDistribution]:
    """Return one float distribution a variable, over its range of keep ratios."""
    return {variable.name: FloatDistribution(variable.low, variable.high) for variable in variables}


def trial_seed(seed: int, number: int, *stream: int) -> int:
    """Return the seed of trial `number`, or of one of its streams, in [0, 2**32)."""
    return int(np.random.SeedSequence([seed, number, *stream]).generate_state(1)[0])
