"""Regularised evolution: children of the fittest among the youngest finished trials; the old ones die.

Before: a row of SAMPLERS; after: `PerTrialSampler` makes it afresh for each trial.

    sampler = make_evolution(Brief(seed=7, search_seed=0, trials=60, space=space))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from optuna.samplers import BaseSampler

from autoprune.errors import ConfigError
from autoprune.samplers.brief import Brief, EvolutionRates
from autoprune.samplers.history import History, Outcome, levels_of
from autoprune.samplers.plan_sampler import PlanSampler, random_ratios
from autoprune.space.levels import FloatArray, IntArray

LARGEST = 50
"""The largest population that is taken by default."""

MOVED = 2.0
"""Variables that a mutation moves by default, on average."""


def make_evolution(brief: Brief) -> BaseSampler:
    """Make the evolutionary sampler.

    The first trials are random until a population of them is complete; warm starts are part of it. From then
    on a trial is a child of the population at the moment when it is asked for: there are no generations, so
    that workers never wait.

    Departs from the paper: a child may have two parents, each variable from either (the paper mutates only);
    a mutation moves each variable with a probability, half of the moves to a neighbouring level, the others
    to any; and a child whose plan was tried already mutates again.

    Raises:
        ConfigError: rates that leave nothing to breed.

    Reference: Real et al., "Regularized Evolution for Image Classifier Architecture Search", 2019, section 3.
    """
    settled_rates(brief.rates, brief.trials, brief.variables)
    return PlanSampler(brief, _propose)


def settled_rates(rates: EvolutionRates, trials: int, variables: int) -> EvolutionRates:
    """Return the rates with those filled in that follow from the search's size.

    Raises:
        ConfigError: the population takes all trials, or the tournament is larger than the population.
    """
    population = rates.population or max(2, min(LARGEST, trials // 5))
    if rates.population is not None and population >= trials:
        raise ConfigError(
            f"evolution.population: got {population} in a search of {trials} trials, expected "
            "fewer than the trials; a fifth of them is usual."
        )
    tournament = rates.tournament or max(2, round(population / 4))
    if tournament > population:
        raise ConfigError(
            f"evolution.tournament: got {tournament}, expected at most the population, {population}."
        )
    mutation = rates.mutation or min(0.5, MOVED / variables)
    return EvolutionRates(population, tournament, rates.crossover, mutation)


def _propose(brief: Brief, history: History, rng: np.random.Generator, attempt: int) -> FloatArray:
    rates = settled_rates(brief.rates, brief.trials, brief.variables)
    population = history.outcomes[-(rates.population or 0) :]
    if len(population) < (rates.population or 0):
        return random_ratios(brief, rng)
    child = levels_of(brief, _select(population, rates, rng).ratios)
    if rng.random() < rates.crossover:
        other = levels_of(brief, _select(population, rates, rng).ratios)
        child = np.where(rng.random(len(child)) < 0.5, child, other)
    for _ in range(attempt + 1):
        child = _mutate(child, brief.space.ladder.top, rates.mutation or 0.0, rng)
    ratios: FloatArray = brief.space.ladder.ratios(child[None])[0]
    return ratios


def _select(population: Sequence[Outcome], rates: EvolutionRates, rng: np.random.Generator) -> Outcome:
    """Return the fittest of a few drawn at random, the youngest where several are."""
    drawn = rng.choice(len(population), size=min(rates.tournament or 1, len(population)), replace=False)
    return population[max(drawn, key=lambda position: (population[position].score, position))]


def _mutate(levels: IntArray, top: IntArray, rate: float, rng: np.random.Generator) -> IntArray:
    """Move each variable with probability `rate`, and one at least, to another of its levels."""
    moved = rng.random(len(levels)) < rate
    moved[rng.integers(len(levels))] = True
    step = np.where(rng.random(len(levels)) < 0.5, 1, -1)
    neighbour = np.where((levels + step < 0) | (levels + step > top), levels - step, levels + step)
    anywhere = (levels + rng.integers(1, top + 1)) % (top + 1)
    changed = np.where(rng.random(len(levels)) < 0.5, neighbour, anywhere)
    mutated: IntArray = np.where(moved, changed, levels)
    return mutated
