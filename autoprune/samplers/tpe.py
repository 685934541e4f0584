"""The tree-structured Parzen estimator: fast at any number of trials, and learns from pruned trials too.

Example:
    sampler = make_tpe(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from autoprune.samplers._context import SamplerContext


def make_tpe(context: SamplerContext) -> BaseSampler:
    """Make Optuna's multivariate TPE.

    Proposals are random until a fifth of the trials, 5 to 20, have ended. Warm starts count among them.
    Running trials count as bad ones (the constant liar), so that parallel workers try different regions.

    Reference: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011, section 4.
    """
    return TPESampler(
        seed=context.seed,
        multivariate=True,
        constant_liar=True,
        n_startup_trials=context.startup_trials,
    )
