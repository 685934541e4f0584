"""Proposes independent uniform ratios: the control that every other sampler has to beat.

Example:
    sampler = make_random(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, RandomSampler

from autoprune.samplers._context import SamplerContext


def make_random(context: SamplerContext) -> BaseSampler:
    """Make Optuna's random sampler, which reads the seed of the context alone."""
    return RandomSampler(seed=context.seed)
