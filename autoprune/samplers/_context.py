"""The context of a proposal: everything that a sampler gets in addition to the trials of the study.

Example:
    sampler = make_tpe(SamplerContext(seed=7, search_seed=0, trials=60, space=space))
    context.statistics["importance"]["conv1"], context.rates.population
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprune.space import SearchSpace


@dataclass(frozen=True)
class EvolutionRates:
    """Settings of the sampler "evolution". A setting that is None follows from the size of the search.

    Attributes:
        population: number of trials that may have children: the fittest that live. By default a fifth of the
            trials, at most 50.
        lifetime: number of trials after which a finished one dies. By default three populations.
        tournament: number of members of the population that compete to be a parent. By default a quarter.
        crossover: the probability that a child has two parents.
        mutation: the probability that a variable moves to another level. By default four variables move on
            average.
    """

    population: int | None = None
    lifetime: int | None = None
    tournament: int | None = None
    crossover: float = 0.5
    mutation: float | None = None


@dataclass(frozen=True, eq=False)
class SamplerContext:
    """Everything that a sampler needs to propose one trial, in addition to the trials of the study.

    Attributes:
        seed: of this proposal alone.
        search_seed: of the search, the same for all of its trials.
        trials: number of trials of the search. Populations and start-up phases follow from it.
        space: the search space. A proposal has one ratio for each of its variables.
        statistics: {statistic: {variable: value}}, measured once for the search.
        shapes: {parameter: its dense shape}, or empty.
        rates: of evolution.
        rungs: number of rungs that a trial climbs if it is not pruned.
        memory: lives as long as the process. It is for caches only: a sampler must be able to compute exactly
            the same content again from the trials of the study.
    """

    seed: int
    search_seed: int
    trials: int
    space: SearchSpace
    statistics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    rates: EvolutionRates = field(default_factory=EvolutionRates)
    rungs: int = 1
    memory: dict[str, Any] = field(default_factory=dict)

    @property
    def variables(self) -> int:
        """Number of ratios of a proposal."""
        return len(self.space.variables)

    @property
    def startup_trials(self) -> int:
        """Number of trials, warm starts among them, that end before a sampler models the scores.

        It is a fifth of all trials, between 5 and 20. Until then proposals are random.
        """
        return min(20, max(5, self.trials // 5))
