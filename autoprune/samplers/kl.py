"""Plans drawn by divergence: groups whose loss changes the outputs little are cut more often.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_kl(Brief(seed=7, search_seed=0, trials=60, space=space, statistics=statistics))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler

from autoprune.samplers.brief import Brief
from autoprune.samplers.cuts import make_weighted


def make_kl(brief: Brief) -> BaseSampler:
    """Make the sampler that cuts by `brief.statistics["kl"]`; it does not learn from scores.

    The statistic is the KL divergence between the dense model's outputs and those without some of a group.

    Raises:
        ConfigError: the statistic is missing.
    """
    return make_weighted(brief, "kl")
