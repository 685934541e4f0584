"""Own the brief: all that a sampler is told beside the study's trials.

Before: `make_sampler` knows the search; after: every row of SAMPLERS makes its sampler from a brief.

    sampler = make_tpe(Brief(seed=7, search_seed=0, trials=60, space=space))
    brief.statistics["importance"]["conv1"], brief.rates.population
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autoprune.space import SearchSpace


@dataclass(frozen=True)
class EvolutionRates:
    """How the row `evolution` breeds; what is None follows from the search's size.

    Attributes:
        population: how many may have children, the fittest that live; a fifth of the trials at most.
        lifetime: so many trials after it has finished one dies; three populations.
        tournament: how many of them compete to be a parent; a quarter of the population.
        crossover: the probability that a child has two parents.
        mutation: the probability that a variable moves to another level; four variables on average.
    """

    population: int | None = None
    lifetime: int | None = None
    tournament: int | None = None
    crossover: float = 0.5
    mutation: float | None = None


@dataclass(frozen=True, eq=False)
class Brief:
    """What a sampler is told to propose one trial.

    Attributes:
        seed: of this proposal alone.
        search_seed: of the search, the same for all of its trials.
        trials: how many trials the search has; populations and start-up phases follow from it.
        space: the search space; its variables are what is proposed.
        statistics: {statistic: {variable: value}}, measured once for the search.
        shapes: {parameter: its dense shape}, or empty.
        rates: of evolution.
        rungs: how many rungs a trial climbs, if none prunes it.
        memory: lives as long as the process. For caches only: whatever a sampler keeps there it must be able
            to make again from the study's trials, exactly.
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
