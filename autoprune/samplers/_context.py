"""The context of a proposal: all that a sampler gets in addition to the trials of the study.

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
    """How evolution breeds. A rate that is None follows from the size of the search.

    Attributes:
        population: how many may have children, the fittest that live; a fifth of the trials at most.
        lifetime: number of trials after which a finished one dies; three populations.
        tournament: how many of the population compete to be a parent; a quarter of it.
        crossover: the probability that a child has two parents.
        mutation: the probability that a variable moves to another level; four variables on average.
    """

    population: int | None = None
    lifetime: int | None = None
    tournament: int | None = None
    crossover: float = 0.5
    mutation: float | None = None


@dataclass(frozen=True, eq=False)
class SamplerContext:
    """All that a sampler needs to propose one trial, besides the trials of the study.

    Attributes:
        seed: of this proposal alone.
        search_seed: of the search, the same for all of its trials.
        trials: how many trials the search has; populations and start-up phases follow from it.
        space: the search space; a proposal has one ratio for each of its variables.
        statistics: {statistic: {variable: value}}, measured once for the search.
        shapes: {parameter: its dense shape}, or empty.
        rates: of evolution.
        rungs: how many rungs a trial climbs, if none prunes it.
        memory: lives as long as the process. For caches only: a sampler must be able to make everything in it
            again from the trials of the study, exactly.
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
        """How many ratios a proposal has."""
        return len(self.space.variables)

    @property
    def startup_trials(self) -> int:
        """How many trials have to end, warm starts among them, before a model of the scores proposes.

        A fifth of all, 5 to 20; until then proposals are random.
        """
        return min(20, max(5, self.trials // 5))
