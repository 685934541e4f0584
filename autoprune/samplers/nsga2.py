"""NSGA-II: a genetic algorithm whose generations cross and mutate the ratios of the elite.

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
    """NSGA-II whose parents come in one order, whether they are selected now or read from the storage.

    The trials that it did not propose belong to its generations too.
    """

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Cross the parents; nothing while the first generation is not full."""
        adopted = self._adopted(study)
        whole = view_study(study, lambda other: True, shown_as=lambda other: adopted.get(other.number, other))
        return super().sample_relative(whole, trial, search_space)

    def select_parent(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return the elite of the generation before, by trial number."""
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)

    def _adopted(self, study: optuna.Study) -> dict[int, FrozenTrial]:
        """Return {number: the trial with its generation} for the complete trials that have none.

        Theirs is the generation that was under way when they began, so that no later trial changes it.
        """
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

    Trials that it did not propose, warm starts above all, count to the generation that was under way when
    they began: warm starts are part of the first. Optuna's would pass over them, since it learns only from
    trials in which it noted a generation when it was asked, and for queued trials it is not.

    Reference: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, section III.
    """
    return _OrderedParents(seed=context.seed, population_size=max(2, min(50, context.trials // 5)))
