"""The searched criterion: one more variable for each keep ratio, which chooses how its groups are ranked.

    space = ChoiceSpace(build_space(groups, cost, budget), ("l1", "obs"))
    space.candidate(ratios)                    # {"conv1": 8, ...}
    space.candidate(ratios).criteria           # {"conv1": "obs", ...} of the groups that are narrowed

A choice is a number from 0.5 to 1, which stands for one of the criteria, so a proposal stays one vector. A
sampler sees the criteria in their order.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.errors import ConfigError
from autoprune.space._ladder import Ladder
from autoprune.space._levels import Levels
from autoprune.space._search_space import Candidate, Reach, SearchSpace
from autoprune.support.arrays import FloatArray, IntArray

CRITERION = ": criterion"
"""The end of the name of a choice, after the name of its keep ratio."""


class ChoiceSpace(SearchSpace):
    """A search space with a choice of criterion behind the variables of another one.

    A plan that narrows no group of a keep ratio has the first criterion there, so that equal models are one
    plan. Plans are not listed.

    Args:
        base: the space without choices.
        criteria: names of the criteria, at least two.

    Raises:
        ConfigError: a keep ratio has the name of a choice.
    """

    def __init__(self, base: SearchSpace, criteria: Sequence[str]) -> None:
        self._base = base
        self._criteria = tuple(criteria)
        rows = [_choice_row(f"{each.name}{CRITERION}", len(criteria)) for each in base.keep_ratios.variables]
        for row in rows:
            if any(variable.name == row.name for variable in base.variables):
                raise ConfigError(f'space: "{row.name}" is the name of a searched criterion. Rename the tie.')
        ladder = base.ladder
        joined = Ladder([*ladder.rows, *rows], ladder.full, ladder.cost, base.budget)
        super().__init__(base.channel_groups, joined, base.budget, base.relaxed, base.blocks)
        self._wholes = [
            (row.widths == self._full[row.columns]).all(axis=1) for row in base.keep_ratios.ladder.rows
        ]

    @property
    def keep_ratios(self) -> SearchSpace:
        """The space of the keep ratios alone, under the whole budget."""
        return self._base.keep_ratios

    @property
    def shares(self) -> FloatArray:
        """The levels of the searched share of the budget."""
        return self._base.shares

    def at(self, level: int) -> ChoiceSpace:
        """Return the space without the share of the budget, under one level of it."""
        return ChoiceSpace(self._base.at(level), self._criteria)

    def spread(
        self, count: int, *, by_ratio: bool = False, dropping: bool = False
    ) -> list[tuple[float | None, SearchSpace]]:
        """Return the spaces that heuristics fill. They choose no criterion."""
        return self._base.spread(count, by_ratio=by_ratio, dropping=dropping)

    def fit(self, ratios: FloatArray) -> IntArray:
        """Return the levels [n, k] that meet the budget, with the choices as proposed."""
        levels = self.ladder.of_ratios(ratios)
        count = len(self._base.variables)
        levels[:, :count] = self._base.fit(ratios[:, :count])
        return levels

    def encode(self, widths: IntArray) -> FloatArray:
        """Translate widths [groups] or [n, groups] into ratios with the first criterion everywhere."""
        ratios = np.atleast_2d(self._base.encode(widths))
        encoded = np.column_stack([ratios, np.tile(self._first, (len(ratios), 1))])
        return encoded if np.ndim(widths) == 2 else encoded[0]

    def settle(self, ratios: FloatArray) -> FloatArray:
        """Return the ratios [..., k] of the plans that proposals stand for."""
        proposals = np.asarray(ratios, dtype=np.float64).reshape(-1, len(self.variables))
        levels = self._settled(proposals)
        settled = self.ladder.ratios(levels)
        settled[:, : len(self._base.variables)] = self._base.encode(self.ladder.widths(levels))
        return settled.reshape(np.shape(ratios))

    def complete(self, ratios: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Add choices that are drawn at random to keep ratios."""
        low, high = self._first, self.ladder.high[-len(self._first) :]
        drawn: FloatArray = np.concatenate([self._base.complete(ratios, rng), rng.uniform(low, high)])
        return drawn

    def candidate(self, ratios: FloatArray) -> Candidate:
        """Return the widths of a proposal [k], and the criteria of the groups that they narrow."""
        levels = self._settled(np.asarray(ratios, dtype=np.float64)[None])
        widths = self.ladder.widths(levels)[0]
        narrowed = dict(zip(self.groups, widths < self._full, strict=True))
        criteria: dict[str, str] = {}
        choices = levels[0, len(self._base.variables) :].tolist()
        for variable, choice in zip(self.keep_ratios.variables, choices, strict=True):
            criteria |= {name: self._criteria[choice] for name in variable.groups if narrowed[name]}
        return Candidate(zip(self.groups, widths.tolist(), strict=True), criteria)

    @property
    def _first(self) -> FloatArray:
        """The first choice of each keep ratio."""
        return self.ladder.low[len(self._base.variables) :]

    def _settled(self, ratios: FloatArray) -> IntArray:
        """Return the levels [n, k] of proposals. Variables that narrow nothing have the first criterion."""
        levels, base = self.fit(ratios), len(self._base.variables)
        skipped = base - len(self._wholes)  # a searched share and blocks come before the keep ratios
        for v, whole in enumerate(self._wholes):
            levels[whole[levels[:, skipped + v]], base + v] = 0
        return levels

    def list_levels(self) -> IntArray | None:
        """Return the levels [n, k] of all plans, or None if they are too many."""
        return None

    def reach(self) -> Reach:
        """Return the smallest and largest cost, and whether the budget's window can be met."""
        return self._base.reach()


def _choice_row(name: str, count: int) -> Levels:
    """Return the levels of a choice: the same share of the range [0.5, 1] for each criterion."""
    nothing = np.empty(0, dtype=np.int64)
    edges = 0.5 + 0.5 * np.arange(1, count) / count
    return Levels(name, nothing, np.empty((count, 0), dtype=np.int64), np.linspace(0.5, 1.0, count), edges)
