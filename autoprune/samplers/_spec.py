"""The traits of a sampler: one spec for each row of SAMPLERS.

Example:
    SamplerSpec(make_gp, several_objectives=True, about="a Gaussian process")
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optuna.samplers import BaseSampler

from autoprune.samplers._context import EvolutionRates, SamplerContext
from autoprune.support.rows import Row

SamplerFactory = Callable[[SamplerContext], BaseSampler]
"""From a context to a sampler of Optuna's."""


@dataclass(frozen=True)
class SamplerSpec(Row):
    """A row of SAMPLERS.

    Attributes:
        make: makes the sampler that proposes one trial.
        several_objectives: whether it takes several objectives, and learns from all of them or from none.
        learns_from_pruned: whether it learns from pruned trials as Optuna stores them. If not, they are shown
            to it as complete ones, with an estimate of the score that they would have had on the last rung.
        needs: the statistics of the dense model that it reads, which the search measures first.
        check: raises a ConfigError if [search.evolution] or the number of trials does not suit it.
    """

    make: SamplerFactory
    several_objectives: bool = False
    learns_from_pruned: bool = False
    needs: tuple[str, ...] = ()
    check: Callable[[EvolutionRates, int], None] | None = None
