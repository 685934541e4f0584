"""Lists the plans inside the budget window by bounds from the monotone cost; or says that it gave up.

Before: `ladder`; after: `fill`, which takes the nearest plan where its own steps reach none.

    plans = list_plans(ladder, 0.98, limit=65_536)      # int64 [plans, k], or None where there are too many
"""

from __future__ import annotations

import numpy as np

from autoprune.arrays import FloatArray, IntArray
from autoprune.space.ladder import Ladder

ROUNDING = 1e-9
_LOWER_WINDOWS = (0.98, 0.95, 0.9, 0.8, 0.6, 0.3, 0.0)


def list_plans(ladder: Ladder, lowest: float, limit: int) -> IntArray | None:
    """Return every plan whose usage lies in [lowest, 1], or None where more than `limit` stay open."""
    return _grow(ladder, lowest, limit, None)


def nearest_plan(ladder: Ladder, lowest: float, limit: int, target: FloatArray) -> IntArray | None:
    """Return a plan in [lowest, 1] near the ratios `target` [k], from the `limit` nearest at each step."""
    plans = _grow(ladder, lowest, limit, target)
    if plans is None or not len(plans):
        return None
    nearest: IntArray = plans[np.argmin(np.abs(ladder.ratios(plans) - target).sum(axis=1))]
    return nearest


def fullest_plans(ladder: Ladder, limit: int) -> IntArray | None:
    """Return the plans whose usage is the largest that fits, or None where there are too many to tell."""
    for lowest in _LOWER_WINDOWS:
        plans = list_plans(ladder, lowest, limit)
        if plans is None:
            return None
        if len(plans):
            usage = ladder.usage(plans)
            fullest: IntArray = plans[usage >= usage.max() - ROUNDING]
            return fullest
    return None


def _grow(ladder: Ladder, lowest: float, limit: int, target: FloatArray | None) -> IntArray | None:
    """Settle one variable after the other, and drop what the others, all smallest or all full, cannot save.

    The variable that moves the cost most comes first: its bounds cut most.
    """
    order = _by_effect(ladder)
    smallest = np.zeros((1, len(ladder.rows)), dtype=np.int64)
    frontier = smallest
    for position, variable in enumerate(order):
        choices = np.arange(ladder.top[variable] + 1)
        if target is None and len(frontier) * len(choices) > 16 * limit:
            return None
        frontier = np.repeat(frontier, len(choices), axis=0)
        frontier[:, variable] = np.tile(choices, len(frontier) // len(choices))
        frontier = frontier[ladder.usage(frontier) <= 1.0]
        largest = frontier.copy()
        open_ones = order[position + 1 :]
        largest[:, open_ones] = ladder.top[open_ones]
        frontier = frontier[ladder.usage(largest) >= lowest - ROUNDING]
        if len(frontier) > limit:
            if target is None:
                return None
            settled = order[: position + 1]
            distance = np.abs(ladder.ratios(frontier)[:, settled] - target[settled]).sum(axis=1)
            frontier = frontier[np.argsort(distance, kind="stable")[:limit]]
    return frontier


def _by_effect(ladder: Ladder) -> IntArray:
    full = np.repeat(ladder.top[None], len(ladder.rows), axis=0)
    one_small = full.copy()
    np.fill_diagonal(one_small, 0)
    effect = ladder.usage(full[:1]) - ladder.usage(one_small)
    return np.argsort(-effect, kind="stable").astype(np.int64)
