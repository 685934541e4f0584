"""Draws plans by KL divergence: groups whose channels change the outputs little are cut more often.

Example:
    sampler = make_kl(SamplerContext(seed=7, search_seed=0, trials=60, space=space, statistics=statistics))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._statistic_plans import make_weighted


def make_kl(context: SamplerContext) -> BaseSampler:
    """Make the sampler that cuts by `context.statistics["kl"]`. It does not learn from scores.

    The statistic is the KL divergence between the outputs of the dense model and its outputs without the less
    important half of a group's channels. `_statistic_plans.make_weighted` draws the plans.

    Raises:
        ConfigError: the statistic is missing.

    Reference: Luo and Wu, "Neural Network Pruning with Residual-Connections and Limited-Data", 2020. The
    paper ranks single filters by the divergence. Here it weighs groups, half of a group is removed at once,
    and `search.criterion` ranks the channels. BatchNorm is recalibrated before the outputs are compared, as
    it is for every candidate of a search.
    """
    return make_weighted(context, "kl")
