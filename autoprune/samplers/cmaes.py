"""CMA-ES: a normal distribution over the ratios that moves towards the better half of each generation.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_cmaes(Brief(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

import math
import warnings

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler

from autoprune.samplers.brief import Brief

SEPARABLE_FROM = 50
"""From so many variables on only variances are learnt: a full covariance needs too many trials."""

SMALLEST = 4
"""The smallest population with more than one parent; below, the update of the covariance is undefined."""


def make_cmaes(brief: Brief) -> BaseSampler:
    """Make Optuna's CMA-ES with the usual population, 4 + 3 ln k, but at most a fifth of the trials.

    Reference: Hansen, "The CMA Evolution Strategy: A Tutorial", 2016, table 1; separable from 50 variables on
    (Ros and Hansen, "A Simple Modification in CMA-ES Achieving Linear Time and Space Complexity", 2008).
    """
    usual = 4 + math.floor(3 * math.log(brief.variables))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return CmaEsSampler(
            seed=brief.seed,
            popsize=max(SMALLEST, min(usual, brief.trials // 5)),
            use_separable_cma=brief.variables >= SEPARABLE_FROM,
            warn_independent_sampling=False,
        )
