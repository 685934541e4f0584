"""Tree-structured Parzen estimator over all ratios: cheap at any number of trials, learns from pruned ones.

sampler = make_tpe(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

from optuna.samplers import BaseSampler, TPESampler

from autoprune.samplers._context import SamplerContext


def make_tpe(context: SamplerContext) -> BaseSampler:
    """Make Optuna's multivariate TPE; random until a fifth of the trials, 5 to 20, have ended.

    Warm starts count among those.

    Trials that run elsewhere count as bad ones (the constant liar), so that workers spread.

    Reference: Bergstra et al., "Algorithms for Hyper-Parameter Optimization", 2011, section 4.
    """
    return TPESampler(
        seed=context.seed,
        multivariate=True,
        constant_liar=True,
        n_startup_trials=context.startup_trials,
    )
