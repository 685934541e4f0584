"""Independent uniform proposals: the control that every other sampler must beat.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_random(seed=0, trials=60, variables=12)
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler


def make_random(seed: int, trials: int, variables: int) -> BaseSampler:
    """Make Optuna's random sampler; the number of trials and variables does not matter to it."""
    return RandomSampler(seed=seed)
