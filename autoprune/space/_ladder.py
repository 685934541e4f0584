"""The levels of all variables as one table, which gives the costs of many candidates at once.

ladder.of_ratios(ratios)       # int64 [n, k] levels of n candidates in k variables
ladder.usage(levels)           # float64 [n] share of the tightest budget
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from autoprune.space._budget import Budget
from autoprune.space._levels import Levels
from autoprune.support.arrays import FloatArray, IntArray

if TYPE_CHECKING:
    from autoprune.graph import Cost

CostFunction = Callable[[NDArray[np.int64]], "Cost"]
"""From widths [n, groups] to a Cost of arrays [n]. It never falls if a width grows."""

CHUNK = 16_384
"""Candidates whose cost is computed at once: bounds the memory of large sweeps."""


class Ladder:
    """The levels of k variables over the widths of all groups.

    Attributes:
        rows: one `Levels` a variable.
        top: int64 [k], the highest level of each variable.
        low: float64 [k], the ratio of each lowest level.
        high: float64 [k], the ratio of each highest level.
        full: int64 [groups], the widths of the groups without a variable, and the dense ones of the others.
    """

    def __init__(self, rows: Sequence[Levels], full: IntArray, cost: CostFunction, budget: Budget) -> None:
        self.rows = tuple(rows)
        self.cost = cost
        self.budget = budget
        self.top: IntArray = np.array([len(row.ratios) - 1 for row in rows], dtype=np.int64)
        self.low: FloatArray = np.array([row.ratios[0] for row in rows])
        self.high: FloatArray = np.array([row.ratios[-1] for row in rows])
        self.full = full
        self._columns = np.concatenate([row.columns for row in rows])
        self._variable = np.repeat(np.arange(len(rows)), [len(row.columns) for row in rows])
        # Tables of all variables in one array each, so that the widths of many candidates are one lookup.
        tables = [row.widths[:, g] for row in rows for g in range(len(row.columns))]
        self._offset = np.cumsum([0, *(len(table) for table in tables[:-1])])
        self._table = np.concatenate(tables)
        self._ratio_offset = np.cumsum([0, *self.top[:-1] + 1])
        self._ratio_table = np.concatenate([row.ratios for row in rows])

    def under(self, budget: Budget) -> Ladder:
        """Return the same levels under another budget."""
        return Ladder(self.rows, self.full, self.cost, budget)

    def of_ratios(self, ratios: FloatArray) -> IntArray:
        """Return the level [n, k] that each ratio [n, k] lies in."""
        return np.stack([row.of_ratio(ratios[:, v]) for v, row in enumerate(self.rows)], axis=1)

    def ratios(self, levels: IntArray) -> FloatArray:
        """Return the ratio [n, k] that stands for each level [n, k]."""
        chosen: FloatArray = self._ratio_table[self._ratio_offset + levels]
        return chosen

    def widths(self, levels: IntArray) -> IntArray:
        """Return the widths [n, groups] of levels [n, k]. Groups without a variable stay full."""
        widths = np.repeat(self.full[None], len(levels), axis=0)
        widths[:, self._columns] = self._table[self._offset + levels[:, self._variable]]
        return widths

    def usage(self, levels: IntArray) -> FloatArray:
        """Return the share of the tightest budget [n] that levels [n, k] use."""
        parts = [
            self.budget.usage(self.cost(self.widths(levels[start : start + CHUNK])))
            for start in range(0, len(levels), CHUNK)
        ]
        return np.concatenate(parts) if parts else np.empty(0)
