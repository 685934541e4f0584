"""NSGA-II: a genetic algorithm whose generations cross and mutate the ratios of the elite.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_nsga2(Brief(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

import optuna
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.trial import FrozenTrial

from autoprune.samplers.brief import Brief


class _OrderedParents(NSGAIISampler):
    """NSGA-II whose parents come in one order, whether they are selected now or read from the storage."""

    def select_parent(self, study: optuna.Study, generation: int) -> list[FrozenTrial]:
        """Return the elite of the generation before, by trial number."""
        return sorted(super().select_parent(study, generation), key=lambda trial: trial.number)


def make_nsga2(brief: Brief) -> BaseSampler:
    """Make Optuna's NSGA-II with a population of 50, but at most a fifth of the trials.

    Reference: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", 2002, section III.
    """
    return _OrderedParents(seed=brief.seed, population_size=max(2, min(50, brief.trials // 5)))
