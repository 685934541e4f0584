"""Plans drawn by importance: groups whose lesser channels hold little of it are cut more often.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_importance(Brief(seed=7, search_seed=0, trials=60, space=space, statistics=statistics))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler

from autoprune.samplers._context import Brief
from autoprune.samplers._statistic_plans import make_weighted


def make_importance(brief: Brief) -> BaseSampler:
    """Make the sampler that cuts by `brief.statistics["importance"]`; it does not learn from scores.

    The statistic is the share of a group's importance, by `search.criterion`, that the lower half of its
    channels holds: near 0 that half can go, near 0.5 any cut costs.

    Departs from a weight by the mean importance of a group: criteria have units of their own in every layer,
    which a share is free of. How plans are drawn: see `cuts.make_weighted`.

    Raises:
        ConfigError: the statistic is missing.
    """
    return make_weighted(brief, "importance")
