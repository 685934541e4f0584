"""Plans drawn by importance: groups whose lesser channels hold little of it are cut more often.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_importance(Brief(seed=7, search_seed=0, trials=60, space=space, statistics=statistics))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler

from autoprune.samplers.brief import Brief
from autoprune.samplers.cuts import make_weighted


def make_importance(brief: Brief) -> BaseSampler:
    """Make the sampler that cuts by `brief.statistics["importance"]`; it does not learn from scores.

    Raises:
        ConfigError: the statistic is missing.
    """
    return make_weighted(brief, "importance")
