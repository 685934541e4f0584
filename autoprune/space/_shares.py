"""The searched share of the budget: one more variable, so that proposals spread over a whole Pareto front.

Searches with several objectives propose in this space. Each plan fills the share that is proposed with it.

    space = ShareSpace(build_space(groups, cost, Budget(macs=20_000_000)), ["macs"])
    widths = space.decode(np.array([0.3, *ratios]))       # between 98% and 100% of 6 M MACs
    space.encode(widths)                                  # array([0.3.., ...]), which decode to them again

The share scales the limits on the costs that are objectives. Any other limit stays as it is. The levels of
the share are so close that their windows overlap, so every plan fills one of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from autoprune.errors import BudgetError, ConfigError
from autoprune.space._budget import WINDOW_LOW
from autoprune.space._exhaustive import list_plans
from autoprune.space._ladder import Ladder
from autoprune.space._levels import Levels
from autoprune.space._search_space import COUNTED, Reach, SearchSpace
from autoprune.support.arrays import FloatArray, IntArray

SHARE = "budget_share"
"""Name of the variable."""

STEP = WINDOW_LOW + 0.001
"""A level is at least this share of the one above it, so that no plan falls between two windows."""

KEPT = 32
"""Spaces of single levels that are kept for the next proposal: each may have listed thousands of plans."""

ROUNDING = 1e-9


class ShareSpace(SearchSpace):
    """A search space whose first variable is the share of the budget that a proposal fills.

    It ranges from the usage of the smallest plan to that of the largest, or to 1 if that is less.

    Args:
        base: the space of the keep ratios, under the largest budget.
        costs: those that are objectives. The budget limits each of them.

    Raises:
        ConfigError: a keep ratio has the share's name.
        BudgetError: the smallest plan alone meets the budget.
    """

    def __init__(self, base: SearchSpace, costs: Sequence[str]) -> None:
        if any(variable.name == SHARE for variable in base.variables):
            raise ConfigError(f'space: "{SHARE}" is the name of the searched share. Rename the tie or layer.')
        self._base = base
        self._costs = tuple(costs)
        self._scaled = base.budget.only(costs)
        self._spaces: dict[int, SearchSpace] = {}
        ladder = base.ladder
        ends = np.stack([np.zeros_like(ladder.top), ladder.top])
        smallest, largest = self._scaled.usage(ladder.cost(ladder.widths(ends))).tolist()
        rows = [_share_row(smallest, largest), *ladder.rows]
        if len(rows[0].ratios) == 1:
            raise BudgetError(
                "search.objectives: the smallest plan alone meets the budget, so there is no front. Raise or "
                "leave out the limits of [budget], or search for the score alone."
            )
        budget = base.budget
        joined = Ladder(rows, ladder.full, ladder.cost, budget)
        super().__init__(base.channel_groups, joined, budget, base.relaxed, base.blocks)

    @property
    def shares(self) -> FloatArray:
        """The levels of the share, ascending."""
        return self.ladder.rows[0].ratios

    @property
    def keep_ratios(self) -> SearchSpace:
        """The space of the keep ratios alone, under the whole budget."""
        return self._base.keep_ratios

    def at(self, level: int) -> SearchSpace:
        """Return the space without the share, under one level of it."""
        if level not in self._spaces:
            if len(self._spaces) == KEPT:
                del self._spaces[next(iter(self._spaces))]
            budget = self.budget.scaled(float(self.shares[level]), self._costs)
            self._spaces[level] = self._base.under(budget)
        return self._spaces[level]

    def spread(
        self, count: int, *, by_ratio: bool = False, dropping: bool = False
    ) -> list[tuple[float | None, SearchSpace]]:
        """Return the spaces under `count` shares, each in the middle of its part of the range.

        The parts have equal lengths, or equal ratios of their ends.
        """
        low, high = self.shares[0], self.shares[-1]
        place = (np.arange(count) + 0.5) / count
        wanted = low * (high / low) ** place if by_ratio else low + (high - low) * place
        levels = dict.fromkeys(self.ladder.rows[0].of_ratio(wanted).tolist())
        spaces = ((float(self.shares[level]), self.at(level)) for level in levels)
        return [(share, part) for share, space in spaces for _, part in space.spread(1, dropping=dropping)]

    def fit(self, ratios: FloatArray) -> IntArray:
        """Return the levels [n, k] that fill the share that each row of ratios [n, k] begins with."""
        levels = self.ladder.of_ratios(ratios)
        for share in np.unique(levels[:, 0]).tolist():
            rows = levels[:, 0] == share
            levels[rows, 1:] = self.at(share).fit(ratios[rows, 1:])
        return levels

    def encode(self, widths: IntArray) -> FloatArray:
        """Translate widths [groups] or [n, groups] into the share that they fill and their ratios."""
        ratios = np.atleast_2d(self._base.encode(widths))
        used = self._scaled.usage(self.cost(widths))
        levels = np.searchsorted(self.shares, used * (1 + ROUNDING))
        shares = self.shares[np.minimum(levels, len(self.shares) - 1)]
        encoded = np.column_stack([shares, ratios])
        return encoded if np.ndim(widths) == 2 else encoded[0]

    def list_levels(self) -> IntArray | None:
        """Return the levels [n, k] of all plans, or None if they are too many."""
        # The windows of the shares overlap, so a proposal can decode to any plan within the whole budget.
        listed = None if self.blocks else list_plans(self._base.ladder, 0.0, COUNTED)
        return None if listed is None else np.insert(listed, 0, 0, axis=1)

    def reach(self) -> Reach:
        """Return the smallest and largest cost of the space, and whether the whole budget can be filled."""
        return self.at(len(self.shares) - 1).reach()


def _share_row(smallest: float, largest: float) -> Levels:
    """Return the levels of a share between the usages of the smallest and of the largest plan."""
    # A little more than either usage, so that rounding never excludes these plans.
    high = min(1.0, largest * (1 + 2 * ROUNDING))
    low = min(high, smallest * (1 + 2 * ROUNDING))
    steps = math.ceil(math.log(low / high) / math.log(STEP))
    shares = high * (low / high) ** (np.arange(steps, -1, -1) / max(1, steps))
    nothing = np.empty(0, dtype=np.int64)
    edges = (shares[1:] + shares[:-1]) / 2
    return Levels(SHARE, nothing, np.empty((len(shares), 0), dtype=np.int64), shares, edges)
