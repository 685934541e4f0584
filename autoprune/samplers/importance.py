"""Draws plans by importance: groups whose lesser channels hold little importance are cut more often.

Example:
    sampler = make_importance(SamplerContext(7, 0, trials=60, space=space, statistics=statistics))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._statistic_plans import make_weighted


def make_importance(context: SamplerContext) -> BaseSampler:
    """Make the sampler that cuts by `context.statistics["importance"]`. It does not learn from scores.

    The statistic is the share of a group's importance, by `search.criterion`, that the lower half of its
    channels holds. Near 0 that half can be removed, and near 0.5 every cut is expensive. A share has no unit,
    unlike the mean importance, which differs in scale between layers. `_statistic_plans.make_weighted` draws
    the plans.

    Raises:
        ConfigError: the statistic is missing.
    """
    return make_weighted(context, "importance")
