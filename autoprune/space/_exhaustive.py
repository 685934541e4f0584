"""Lists the plans of small spaces, by bounds from the monotone cost, or gives up if there are too many.

plans = list_plans(ladder, 0.98, limit=65_536)      # int64 [plans, k] inside the budget's window, or None
best = best_plan(ladder, values, known, limit=1_000)
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.space._ladder import Ladder
from autoprune.support.arrays import FloatArray, IntArray

ROUNDING = 1e-9
_LOWER_WINDOWS = (0.98, 0.95, 0.9, 0.8, 0.6, 0.3, 0.0)


def list_plans(ladder: Ladder, lowest: float, limit: int) -> IntArray | None:
    """Return every plan whose usage lies in [lowest, 1], or None if more than `limit` stay open."""
    return _grow(ladder, lowest, limit, None)


def nearest_plan(ladder: Ladder, lowest: float, limit: int, target: FloatArray) -> IntArray | None:
    """Return a plan in [lowest, 1] near the ratios `target` [k], from the `limit` nearest at each step."""
    plans = _grow(ladder, lowest, limit, target)
    if plans is None or not len(plans):
        return None
    nearest: IntArray = plans[np.argmin(np.abs(ladder.ratios(plans) - target).sum(axis=1))]
    return nearest


def fullest_plans(ladder: Ladder, limit: int) -> IntArray | None:
    """Return the plans whose usage is the largest that fits, or None if there are too many to list."""
    for lowest in _LOWER_WINDOWS:
        plans = list_plans(ladder, lowest, limit)
        if plans is None:
            return None
        if len(plans):
            usage = ladder.usage(plans)
            fullest: IntArray = plans[usage >= usage.max() - ROUNDING]
            return fullest
    return None


def best_plan(ladder: Ladder, values: Sequence[FloatArray], known: IntArray, limit: int) -> IntArray | None:
    """Return the most valuable plan that fits, or None if more than `limit` beginnings of plans stay open.

    Args:
        ladder: the levels of k variables.
        values: for each variable float64 [its levels], nondecreasing.
        known: int64 [k], a plan that fits. The better it is, the fewer beginnings stay open.
        limit: beginnings of plans that are kept at most.
    """
    total = np.array([value[level] for value, level in zip(values, known, strict=True)]).sum()
    tops = np.array([value[-1] for value in values])
    order = _by_effect(ladder)
    frontier, worth = np.zeros((1, len(values)), dtype=np.int64), np.zeros(1)
    for position, variable in enumerate(order):
        choices = np.arange(ladder.top[variable] + 1)
        if len(frontier) * len(choices) > 16 * limit:
            return None
        worth = (worth[:, None] + values[variable]).flatten()
        frontier = np.repeat(frontier, len(choices), axis=0)
        frontier[:, variable] = np.tile(choices, len(frontier) // len(choices))
        # Open variables at their highest levels bound the value, and at their smallest the cost.
        promising = worth + tops[order[position + 1 :]].sum() > total
        frontier, worth = frontier[promising], worth[promising]
        fits = ladder.usage(frontier) <= 1.0
        frontier, worth = frontier[fits], worth[fits]
        if len(frontier) > limit:
            return None
    return frontier[worth.argmax()] if len(frontier) else known


def _grow(ladder: Ladder, lowest: float, limit: int, target: FloatArray | None) -> IntArray | None:
    """Settle one variable after the other, and drop the beginnings of plans that no continuation can save.

    A beginning is dropped if it exceeds the budget with the open variables at their smallest, or stays below
    the window with them at their largest. The variable that moves the cost most comes first, since its bounds
    drop most.
    """
    order = _by_effect(ladder)
    smallest = np.zeros((1, len(ladder.rows)), dtype=np.int64)
    frontier = smallest
    for position, variable in enumerate(order):
        choices = np.arange(ladder.top[variable] + 1)
        # Far more beginnings than the limit are not worth evaluating: the bounds rarely drop that many.
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
