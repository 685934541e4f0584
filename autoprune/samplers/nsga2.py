"""NSGA-II: a genetic algorithm for several objectives that crosses and mutates the ratios of an elite.

Example:
    sampler = make_nsga2(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

import copy
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.trial import FrozenTrial, TrialState

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._study_view import view_study


class _OrderedParents(NSGAIISampler):
    """NSGA-II with parents in one order, whether it selects them or reads them from the storage.

    Trials that it did not propose belong to its generations too.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Cross parents. Propose nothing until the first generation is full."""
        adopted = self._adopted(study)
        whole = view_study(study, lambda other: True, shown_as=lambda other: adopted.get(other.number, other))
        return super().sample_relative(whole, trial, search_space)

    def select_parent(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return the elite of the previous generation, by trial number."""
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)

    def _adopted(self, study: optuna.Study) -> dict[int, FrozenTrial]:
        """Return {number: the trial with its generation} for the complete trials without a generation.

        Such a trial gets the generation that was under way when it began, so that no later trial changes it.
        """
        # Trials come by number, so `under_way` is the latest generation among the trials before each one.
        key, under_way = self._get_generation_key(), 0
        adopted = {}
        for trial in study.get_trials(deepcopy=False):
            under_way = max(under_way, trial.system_attrs.get(key, 0))
            if trial.state == TrialState.COMPLETE and key not in trial.system_attrs:
                adopted[trial.number] = copy.copy(trial)
                adopted[trial.number].system_attrs = {**trial.system_attrs, key: under_way}
        return adopted


def make_nsga2(context: SamplerContext) -> BaseSampler:
    """Make Optuna's NSGA-II with a population of 50, but at most a fifth of the trials.

    Trials that the sampler did not propose belong to the generation that was under way when they began. So
    warm starts are part of the first one. Optuna's sampler would ignore them, because it notes a generation
    only in trials that it proposes, and queued trials are not proposed.

    Reference: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, section III.
    """
    return _OrderedParents(seed=context.seed, population_size=max(2, min(50, context.trials // 5)))
