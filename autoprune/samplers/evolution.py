"""Regularised evolution: a proposal is a child of the fittest among the younger trials. Old trials die.

Example:
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

    Trials are random until a population of them, warm starts included, is complete. From then on, a trial is
    a child of the population at the moment of its proposal. There are no generations, so workers never wait.

    Raises:
        ConfigError: the rates leave nothing to breed.

    Reference: Real et al., "Regularized Evolution for Image Classifier Architecture Search", 2019, section 3.
    Differs in three points. In the paper, whose searches have thousands of trials, all trials that live are
    the population. Within 60 trials this would lose the best ones, so the population is the fittest of those
    that live, and a trial dies after `lifetime` later ones have finished. The paper mutates only. A child
    here may have two parents, and takes each variable from either of them. A mutation moves each variable
    with a given probability by a normal step. A child whose plan was tried is made again with larger steps.
    """
    settled_rates(context.rates, context.trials, context.variables)
    return PlanSampler(context, _propose)


def check_rates(rates: EvolutionRates, trials: int) -> None:
    """Refuse rates that leave nothing to breed. The space need not be known yet.

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
            "fewer than the trials. A fifth of them is usual."
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
    """Return the fittest trials of those that live, in the order in which they finished."""
    alive = outcomes[-(rates.lifetime or 0) :]
    fittest = sorted(range(len(alive)), key=lambda place: (alive[place].score, place))
    return [alive[place] for place in sorted(fittest[-(rates.population or 0) :])]


def _select(population: Sequence[Outcome], rates: EvolutionRates, rng: np.random.Generator) -> Outcome:
    """Draw a few trials and return the fittest of them, the youngest if several are equal."""
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
    # A step that is reflected back to its own level goes to the next level instead.
    target = np.where(target == levels, np.where(levels < top, levels + 1, levels - 1), target)
    mutated: IntArray = np.where(moved, target, levels).astype(np.int64)
    return mutated
