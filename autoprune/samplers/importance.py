"""Plans drawn by importance: groups whose lesser channels hold little of it are cut more often.

sampler = make_importance(SamplerContext(7, 0, trials=60, space=space, statistics=statistics))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._statistic_plans import make_weighted


def make_importance(context: SamplerContext) -> BaseSampler:
    """Make the sampler that cuts by `context.statistics["importance"]`; it does not learn from scores.

    The statistic is the share of a group's importance, by `search.criterion`, that the lower half of its
    channels holds: near 0 that half can go, near 0.5 any cut costs.

    Departs from a weight by the mean importance of a group: criteria have units of their own in every layer,
    which a share is free of. How plans are drawn: see `cuts.make_weighted`.

    Raises:
        ConfigError: the statistic is missing.
    """
    return make_weighted(context, "importance")
