"""The samplers: who proposes keep ratios. One row of SAMPLERS a sampler, all behind one stateless wrapper.

Before: `space` names the variables and their ranges; after: `engines` asks the study for trials.

    study.sampler = make_sampler("tpe", seed=0, trials=60, space=space)

A new sampler is a function from a `Brief` to an Optuna sampler, in a file of its own, and one row here;
tests/samplers proves that every row repeats its proposals after a kill.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.errors import ConfigError, unknown
from autoprune.samplers._attributes import QUEUED, SCORES
from autoprune.samplers._context import Brief, EvolutionRates
from autoprune.samplers._past_trials import ENDED_BEFORE, OUTCOME
from autoprune.samplers._per_trial import PROPOSED, PerTrialSampler, SamplerFactory, distributions, trial_seed
from autoprune.samplers._study_view import view_study
from autoprune.samplers.cmaes import make_cmaes
from autoprune.samplers.ddpg import make_ddpg
from autoprune.samplers.evolution import make_evolution
from autoprune.samplers.gp import make_gp
from autoprune.samplers.importance import make_importance
from autoprune.samplers.kl import make_kl
from autoprune.samplers.nsga2 import make_nsga2
from autoprune.samplers.policy_gradient import make_policy_gradient
from autoprune.samplers.random import make_random
from autoprune.samplers.tpe import make_tpe
from autoprune.space import SearchSpace

SAMPLERS: dict[str, SamplerFactory] = {
    "random": make_random,
    "tpe": make_tpe,
    "gp": make_gp,
    "cmaes": make_cmaes,
    "nsga2": make_nsga2,
    "evolution": make_evolution,
    "ddpg": make_ddpg,
    "policy_gradient": make_policy_gradient,
    "importance": make_importance,
    "kl": make_kl,
}

IGNORES_PRUNED = frozenset({"gp", "cmaes", "nsga2", "evolution", "ddpg", "policy_gradient"})
"""Samplers that learn from complete trials alone. `pruned` shows them pruned trials as complete ones."""

SEVERAL_OBJECTIVES = ("nsga2", "tpe", "gp", "random")
"""Samplers that learn from several objectives, or need not learn."""

__all__ = [
    "ENDED_BEFORE",
    "IGNORES_PRUNED",
    "OUTCOME",
    "PROPOSED",
    "QUEUED",
    "SAMPLERS",
    "SCORES",
    "SEVERAL_OBJECTIVES",
    "Brief",
    "EvolutionRates",
    "PerTrialSampler",
    "SamplerFactory",
    "check_sampler",
    "distributions",
    "make_sampler",
    "trial_seed",
    "view_study",
]


def check_sampler(name: str, objectives: int) -> None:
    """Refuse a sampler that there is not, or one that takes one objective for a search of several.

    Raises:
        ConfigError: the name is unknown (the nearest is named), or those that take several are others.
    """
    if name not in SAMPLERS:
        raise ConfigError(unknown("search.sampler", name, SAMPLERS))
    if objectives > 1 and name not in SEVERAL_OBJECTIVES:
        known = ", ".join(f'"{each}"' for each in SEVERAL_OBJECTIVES)
        raise ConfigError(
            f'search.sampler: "{name}" takes one objective, and search.objectives names {objectives}; choose '
            f"one of {known}."
        )


def make_sampler(
    name: str,
    *,
    seed: int,
    trials: int,
    space: SearchSpace,
    statistics: Mapping[str, Mapping[str, float]] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    rates: EvolutionRates | None = None,
    objectives: int = 1,
    rungs: int = 1,
) -> PerTrialSampler:
    """Make a sampler by name.

    Args:
        name: a row of SAMPLERS.
        seed: the search's seed; trial n is proposed with a seed derived from it and n.
        trials: how many trials the search has.
        space: the search space.
        statistics: {"importance" or "kl": {variable: value}}; the samplers of those names need theirs.
        shapes: {parameter: dense shape}, which "ddpg" looks at.
        rates: of "evolution".
        objectives: how many values a trial is told with.
        rungs: how many rungs a trial climbs, if none prunes it.

    Raises:
        ConfigError: the name is unknown (the nearest is named), the sampler lacks what it needs, or it takes
            one objective only.
    """
    check_sampler(name, objectives)
    brief = Brief(
        seed=seed,
        search_seed=seed,
        trials=trials,
        space=space,
        statistics=statistics or {},
        shapes=shapes or {},
        rates=rates or EvolutionRates(),
        rungs=rungs,
    )
    SAMPLERS[name](brief)  # refuses here, not in the first trial, what it cannot work with
    return PerTrialSampler(SAMPLERS[name], brief, ignores_pruned=name in IGNORES_PRUNED)
