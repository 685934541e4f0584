"""The samplers: who proposes keep ratios. One row of SAMPLERS a sampler, all behind one stateless wrapper.

Before: `space` names the variables and their ranges; after: `engines` asks the study for trials.

    study.sampler = make_sampler("tpe", seed=0, trials=60, space=distributions(space.variables))

A new sampler is a function (seed, trials, variables) -> an Optuna sampler, in a file of its own, and one row
here; tests/samplers proves that every row repeats its proposals after a kill.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from optuna.distributions import BaseDistribution, FloatDistribution

from autoprune.errors import ConfigError, suggest
from autoprune.samplers.cmaes import make_cmaes
from autoprune.samplers.gp import make_gp
from autoprune.samplers.nsga2 import make_nsga2
from autoprune.samplers.per_trial import PerTrialSampler, SamplerFactory, trial_seed
from autoprune.samplers.random import make_random
from autoprune.samplers.tpe import make_tpe
from autoprune.samplers.views import view_study
from autoprune.space import Variable

SAMPLERS: dict[str, SamplerFactory] = {
    "random": make_random,
    "tpe": make_tpe,
    "gp": make_gp,
    "cmaes": make_cmaes,
    "nsga2": make_nsga2,
}

IGNORES_PRUNED = frozenset({"gp", "cmaes", "nsga2"})
"""Samplers that learn from complete trials only: for them a stopped trial is complete, less a penalty."""

__all__ = [
    "IGNORES_PRUNED",
    "SAMPLERS",
    "PerTrialSampler",
    "SamplerFactory",
    "distributions",
    "make_sampler",
    "trial_seed",
    "view_study",
]


def distributions(variables: Iterable[Variable]) -> dict[str, FloatDistribution]:
    """Return one float distribution a variable, over its range of keep ratios."""
    return {variable.name: FloatDistribution(variable.low, variable.high) for variable in variables}


def make_sampler(
    name: str, *, seed: int, trials: int, space: Mapping[str, BaseDistribution]
) -> PerTrialSampler:
    """Make a sampler by name.

    Args:
        name: a row of SAMPLERS.
        seed: the search's seed; trial n is proposed with a seed derived from it and n.
        trials: how many trials the search has.
        space: the distributions of all variables.

    Raises:
        ConfigError: the name is unknown (the nearest is named).
    """
    if name not in SAMPLERS:
        hint = suggest(name, SAMPLERS) or f" Known: {', '.join(SAMPLERS)}."
        raise ConfigError(f"search.sampler: unknown sampler {name!r}.{hint}")
    return PerTrialSampler(SAMPLERS[name], seed=seed, trials=trials, space=space)
