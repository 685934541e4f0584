"""Plans drawn by divergence: groups whose loss changes the outputs little are cut more often.

sampler = make_kl(SamplerContext(seed=7, search_seed=0, trials=60, space=space, statistics=statistics))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._statistic_plans import make_weighted


def make_kl(context: SamplerContext) -> BaseSampler:
    """Make the sampler that cuts by `context.statistics["kl"]`; it does not learn from scores.

    The statistic is the KL divergence of the outputs from those of the dense model, as half of the channels
    of a group go, the least important ones.

    Departs from the paper, whose divergence ranks the filters that go: it weighs groups here, and which
    channels of a group stay is `search.criterion`'s choice. So half of each group goes at once, in place of
    filter after filter, and BatchNorm is recalibrated before the outputs are compared, as it is for every
    candidate of a search. How plans are drawn: see `cuts.make_weighted`.

    Reference: Luo and Wu, "Neural Network Pruning with Residual-Connections and Limited-Data", 2020.

    Raises:
        ConfigError: the statistic is missing.
    """
    return make_weighted(context, "kl")
