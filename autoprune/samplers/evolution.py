"""Regularised evolution: children of the fittest among the younger finished trials; the old ones die.

sampler = make_evolution(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.samplers import BaseSampler

from autoprune.errors import ConfigError
from autoprune.samplers._context import EvolutionRates, SamplerContext
from autoprune.samplers._past_trials import History, Outcome, levels_of
from autoprune.samplers._plan_sampler import PlanSampler, random_ratios
from autoprune.support.arrays import FloatArray, IntArray

LARGEST = 50
"""The largest default population."""

MOVED = 4.0
"""Variables that a mutation moves by default, on average."""

SPREAD = 0.2
"""Standard deviation of a variable's move, as a share of its range."""

GENERATIONS = 3
"""The default lifetime, in populations."""


def make_evolution(context: SamplerContext) -> BaseSampler:
    """Make the evolutionary sampler.

    The first trials are random until a population of them is complete; warm starts are part of it. From then
    on a trial is a child of the population at the moment when it is asked for: there are no generations, so
    that workers never wait.

    Departs from the paper: the population is the fittest of all that live, and one dies once `lifetime`
    trials finished after it (in the paper, where searches have thousands of trials, all that live are the
    population; in 60 trials that forgets what it has found); a child may have two parents, each variable from
    either (the paper mutates only); a mutation moves each variable with a probability by a normal step, and a
    child whose plan was tried already is made again with larger steps.

    Raises:
        ConfigError: rates that leave nothing to breed.

    Reference: Real et al., "Regularized Evolution for Image Classifier Architecture Search", 2019, section 3.
    """
    settled_rates(context.rates, context.trials, context.variables)
    return PlanSampler(context, _propose)


def check_rates(rates: EvolutionRates, trials: int) -> None:
    """Refuse rates that leave nothing to breed, before the space is known.

    Raises:
        ConfigError: see `settled_rates`.
    """
    settled_rates(rates, trials, variables=1)


def settled_rates(rates: EvolutionRates, trials: int, variables: int) -> EvolutionRates:
    """Return the rates, with defaults that follow from the size of the search.

    Raises:
        ConfigError: the population takes all trials, the tournament is larger than the population, or its
            members die before it is complete.
    """
    population = rates.population or max(2, min(LARGEST, trials // 5))
    if rates.population is not None and population >= trials:
        raise ConfigError(
            f"search.evolution.population: got {population} in a search of {trials} trials, expected "
            "fewer than the trials; a fifth of them is usual."
        )
    tournament = rates.tournament or max(2, round(population / 4))
    if tournament > population:
        raise ConfigError(
            f"search.evolution.tournament: got {tournament}, expected at most the population, {population}."
        )
    lifetime = rates.lifetime or GENERATIONS * population
    if lifetime < population:
        raise ConfigError(
            f"search.evolution.lifetime: got {lifetime}, expected at least the population, {population}."
        )
    mutation = rates.mutation or min(0.5, MOVED / variables)
    return EvolutionRates(population, lifetime, tournament, rates.crossover, mutation)


def _propose(context: SamplerContext, history: History, rng: np.random.Generator, attempt: int) -> FloatArray:
    rates = settled_rates(context.rates, context.trials, context.variables)
    if len(history.outcomes) < (rates.population or 0):
        return random_ratios(context, rng)
    population = _population(history.outcomes, rates)
    child = levels_of(context, _select(population, rates, rng).ratios)
    if rng.random() < rates.crossover:
        other = levels_of(context, _select(population, rates, rng).ratios)
        child = np.where(rng.random(len(child)) < 0.5, child, other)
    child = _mutate(child, context.space.ladder.top, rates.mutation or 0.0, SPREAD * (attempt + 1), rng)
    ratios: FloatArray = context.space.ladder.ratios(child[None])[0]
    return ratios


def _population(outcomes: Sequence[Outcome], rates: EvolutionRates) -> list[Outcome]:
    """Return the fittest of those that live, in the order in which they finished."""
    alive = outcomes[-(rates.lifetime or 0) :]
    fittest = sorted(range(len(alive)), key=lambda place: (alive[place].score, place))
    return [alive[place] for place in sorted(fittest[-(rates.population or 0) :])]


def _select(population: Sequence[Outcome], rates: EvolutionRates, rng: np.random.Generator) -> Outcome:
    """Return the fittest of a few drawn at random, and the youngest if several are equal."""
    drawn = rng.choice(len(population), size=min(rates.tournament or 1, len(population)), replace=False)
    return population[max(drawn, key=lambda position: (population[position].score, position))]


def _mutate(
    levels: IntArray, top: IntArray, rate: float, spread: float, rng: np.random.Generator
) -> IntArray:
    """Move each variable with probability `rate`, and one at least, by a normal step to another level."""
    moved = rng.random(len(levels)) < rate
    moved[rng.integers(len(levels))] = True
    drawn = rng.normal(0.0, spread * top)
    step = np.where(drawn < 0, np.minimum(np.rint(drawn), -1), np.maximum(np.rint(drawn), 1))
    target = np.abs(levels + step)
    target = np.clip(np.where(target > top, 2 * top - target, target), 0, top)
    # A step that the end of the range reflects onto where it began goes to the next level instead.
    target = np.where(target == levels, np.where(levels < top, levels + 1, levels - 1), target)
    mutated: IntArray = np.where(moved, target, levels).astype(np.int64)
    return mutated
