"""Independent uniform proposals: the control that every other sampler must beat.

sampler = make_random(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from autoprune.samplers._context import SamplerContext


def make_random(context: SamplerContext) -> BaseSampler:
    """Make Optuna's random sampler; the number of trials and variables does not matter to it."""
    return RandomSampler(seed=context.seed)
