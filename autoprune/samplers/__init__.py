"""The samplers, which propose keep ratios: one row of SAMPLERS each, behind one wrapper without state.

Example:
    study.sampler = make_sampler("tpe", seed=0, trials=60, space=space)

A new sampler is a function from a `SamplerContext` to a sampler of Optuna's, in a file of its own, and a row
in SAMPLERS with its traits. tests/samplers/test_conformance.py checks every row: a search that is killed
makes the proposals of an uninterrupted one.

A sampler of your own needs no row. A config names its function or its spec, `sampler = "mypkg.search:wide"`:

    from optuna.samplers import BaseSampler, TPESampler
    from autoprune.samplers import SamplerContext, SamplerSpec

    def make_wide(context: SamplerContext) -> BaseSampler:
        return TPESampler(seed=context.seed, n_startup_trials=context.startup_trials, n_ei_candidates=100)

    wide = SamplerSpec(make_wide, several_objectives=True, learns_from_pruned=True)

The function is called for each trial, and the sampler that it returns proposes this trial alone. Its proposal
may depend on the context and on the trials of the study, and on nothing else. Then a resumed search makes
the same proposals as an uninterrupted one.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.errors import ConfigError
from autoprune.samplers._attributes import QUEUED, SCORES, fact_key, fact_of, has_fact, set_attribute
from autoprune.samplers._context import EvolutionRates, SamplerContext
from autoprune.samplers._moving_budget import PLANNED, MovingBudget
from autoprune.samplers._past_trials import ENDED_BEFORE, OUTCOME
from autoprune.samplers._per_trial import PROPOSED, PerTrialSampler, distributions, trial_seed
from autoprune.samplers._plan_sampler import PlanSampler
from autoprune.samplers._spec import SamplerFactory, SamplerSpec
from autoprune.samplers._study_view import view_study
from autoprune.samplers.cmaes import make_cmaes
from autoprune.samplers.ddpg import make_ddpg
from autoprune.samplers.evolution import check_rates, make_evolution
from autoprune.samplers.gp import make_gp
from autoprune.samplers.importance import make_importance
from autoprune.samplers.kl import make_kl
from autoprune.samplers.nsga2 import make_nsga2
from autoprune.samplers.policy_gradient import make_policy_gradient
from autoprune.samplers.random import make_random
from autoprune.samplers.tpe import make_tpe
from autoprune.space import SearchSpace
from autoprune.support.rows import find_row, quoted

SAMPLERS: dict[str, SamplerSpec] = {
    "random": SamplerSpec(
        make_random,
        several_objectives=True,
        about="uniform keep ratios: the control that every other sampler has to beat",
    ),
    "tpe": SamplerSpec(
        make_tpe,
        several_objectives=True,
        learns_from_pruned=True,
        about="a tree of Parzen estimators: fast, so it suits thousands of trials",
    ),
    "gp": SamplerSpec(
        make_gp,
        several_objectives=True,
        about="a Gaussian process: best in few trials, seconds a proposal after 300",
    ),
    "cmaes": SamplerSpec(make_cmaes, about="CMA-ES, an evolution strategy that adapts its covariance"),
    "nsga2": SamplerSpec(
        make_nsga2,
        several_objectives=True,
        about="NSGA-II, a genetic algorithm for several objectives",
    ),
    "evolution": SamplerSpec(
        make_evolution,
        check=check_rates,
        reads=("search.evolution",),
        about="regularised evolution, with the rates of [search.evolution]: suits thousands of trials",
    ),
    "ddpg": SamplerSpec(
        make_ddpg, about="the actor-critic of AMC, which chooses one keep ratio after the other"
    ),
    "policy_gradient": SamplerSpec(
        make_policy_gradient, about="REINFORCE with one normal distribution for each keep ratio"
    ),
    "importance": SamplerSpec(
        make_importance,
        needs=("importance",),
        about="draws at random, but cuts groups whose lesser channels hold little importance more often",
    ),
    "kl": SamplerSpec(
        make_kl,
        needs=("kl",),
        reads=("search.sensitivity_batches",),
        about="draws at random, but cuts groups that change the outputs little more often",
    ),
}

__all__ = [
    "ENDED_BEFORE",
    "OUTCOME",
    "PLANNED",
    "PROPOSED",
    "QUEUED",
    "SAMPLERS",
    "SCORES",
    "EvolutionRates",
    "MovingBudget",
    "PerTrialSampler",
    "PlanSampler",
    "SamplerContext",
    "SamplerFactory",
    "SamplerSpec",
    "check_sampler",
    "distributions",
    "fact_key",
    "fact_of",
    "find_sampler",
    "has_fact",
    "make_sampler",
    "set_attribute",
    "trial_seed",
    "view_study",
]


def find_sampler(name: str) -> SamplerSpec:
    """Return a row of SAMPLERS, or the user's own from "package.module:function".

    Raises:
        ConfigError: there is no such row (the nearest is suggested), or no such function.
    """
    return find_row(name, SAMPLERS, "search.sampler", SamplerSpec)


def check_sampler(name: str, objectives: int, rates: EvolutionRates, trials: int) -> None:
    """Refuse a sampler that does not exist or that does not suit the search.

    Raises:
        ConfigError: the name is unknown, the sampler takes one objective and the search has several, or its
            own check fails.
    """
    spec = find_sampler(name)
    if objectives > 1 and not spec.several_objectives:
        known = quoted(row for row, each in SAMPLERS.items() if each.several_objectives)
        raise ConfigError(
            f'search.sampler: "{name}" takes one objective, and search.objectives names {objectives}. Choose '
            f"one of {known}."
        )
    if spec.check is not None:
        spec.check(rates, trials)


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
    moving: MovingBudget | None = None,
) -> PerTrialSampler:
    """Make a sampler by name.

    Args:
        name: a row of SAMPLERS, or "package.module:function".
        seed: the search's seed. The seed of trial n is derived from it and n.
        trials: number of trials of the search.
        space: the search space.
        statistics: {statistic: {variable: value}} for the samplers that need any.
        shapes: {parameter: dense shape} for the samplers that look at layers.
        rates: settings of the sampler "evolution".
        objectives: number of values that a complete trial has.
        rungs: number of rungs that a trial climbs if it is not pruned.
        moving: chooses the share of the budget for each trial, if the search is for the smallest model.

    Raises:
        ConfigError: the name is unknown (the nearest is suggested), the sampler lacks a statistic, or it
            takes one objective only.
    """
    rates = rates or EvolutionRates()
    check_sampler(name, objectives, rates, trials)
    spec = find_sampler(name)
    context = SamplerContext(
        seed=seed,
        search_seed=seed,
        trials=trials,
        space=space,
        statistics=statistics or {},
        shapes=shapes or {},
        rates=rates,
        rungs=rungs,
    )
    sampler = PerTrialSampler(
        spec.make, context, learns_from_pruned=spec.learns_from_pruned, name=name, moving=moving
    )
    sampler.make_inner(seed)  # refuses now, not in the first trial
    return sampler
