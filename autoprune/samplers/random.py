"""Independent uniform proposals: the control that every other sampler must beat.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_random(Brief(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from autoprune.samplers._context import Brief


def make_random(brief: Brief) -> BaseSampler:
    """Make Optuna's random sampler; the number of trials and variables does not matter to it."""
    return RandomSampler(seed=brief.seed)
