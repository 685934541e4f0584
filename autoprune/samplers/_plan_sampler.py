"""Makes an Optuna sampler from a rule that proposes ratios. Plans fit the budget, and are new if possible.

Example:
    def propose(context, history, rng, attempt) -> FloatArray: ...     # ratios [k]
    sampler = PlanSampler(context, propose)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._past_trials import History, feasible, read_history
from autoprune.support.arrays import FloatArray

ATTEMPTS = 16
"""Most calls of a rule until no trial has tried its plan. A small space may have no new plan left."""

Propose = Callable[[SamplerContext, History, np.random.Generator, int], FloatArray]
"""From (context, history, generator, attempt) to ratios [k].

It is called again with the next attempt if a trial has already tried its plan.
"""


class PlanSampler(BaseSampler):
    """Proposes the ratios of a plan within the budget, so that a trial holds the ratios that were scored.

    Args:
        context: of this trial.
        propose: the rule. It depends on its arguments alone.
    """

    def __init__(self, context: SamplerContext, propose: Propose) -> None:
        self._context = context
        self._propose = propose

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return an empty space: the rule proposes the whole vector, whatever other trials have."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose every variable of the space."""
        history = read_history(self._context, study, trial)
        rng = np.random.default_rng(self._context.seed)
        for attempt in range(ATTEMPTS):
            plan = feasible(self._context, self._propose(self._context, history, rng, attempt))
            if plan.tobytes() not in history.seen:
                break
        names = [variable.name for variable in self._context.space.variables]
        return dict(zip(names, map(float, plan), strict=True))

    def sample_independent(
        self, study: optuna.Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter at random that is not of the space."""
        inner = RandomSampler(seed=self._context.seed)
        return inner.sample_independent(study, trial, param_name, param_distribution)


def random_ratios(context: SamplerContext, rng: np.random.Generator) -> FloatArray:
    """Return ratios [k], each uniform over its range."""
    ladder = context.space.ladder
    drawn: FloatArray = rng.uniform(ladder.low, ladder.high)
    return drawn
