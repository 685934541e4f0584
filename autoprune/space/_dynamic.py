"""A dynamic programme over linearised costs: the most valuable plans near another one, at every cost.

levels = improved(ladder, values, levels)          # int64 [k]: at least as valuable, its usage at most 1

The cost of a plan is a sum of products of widths. Near one plan it is nearly a sum of one term a variable.
For such a sum a dynamic programme solves the knapsack with one choice a variable exactly. Its table holds the
best plan for every amount of cost, and the exact costs of these plans decide which of them fits.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.space._ladder import Ladder
from autoprune.support.arrays import FloatArray, IntArray

BINS = 500
"""Amounts of cost that the table distinguishes."""

CHOICES = 32
"""Levels of each variable that one table looks at, spread over a range that becomes ever narrower."""

ROUNDS = 20

ROUNDING = 1e-12
"""Share of the largest value from which on a gain is more than rounding."""


def improved(ladder: Ladder, values: Sequence[FloatArray], levels: IntArray) -> IntArray:
    """Move from a plan that fits to better ones until no table holds a better one.

    The first tables look at levels in the whole range, later ones at levels ever nearer to the plan.

    Args:
        ladder: the levels of k variables.
        values: for each variable float64 [its levels], nondecreasing.
        levels: int64 [k], with a usage of at most 1.

    Returns:
        Levels int64 [k] of at least the same total value, whose usage is at most 1.

    Reference: Frantar and Alistarh, SPDY, ICML 2022, solve such a knapsack over layers, whose costs add up.
        Here they do not, so tables are linearised again around each better plan.
    """
    least = ROUNDING * total_values(values, ladder.top[None])[0]
    reach = int(ladder.top.max())
    for _ in range(ROUNDS):
        found = _best_by_cost(ladder, values, levels, reach)
        found = found[ladder.usage(found) <= 1.0]
        gains = total_values(values, found) - total_values(values, levels[None])
        if len(found) and gains.max() > least:
            levels = found[gains.argmax()]
        # A range of at most CHOICES levels was looked at in full, and a narrower one shows nothing new.
        elif 2 * reach >= CHOICES:
            reach //= 4
        else:
            break
    return levels


def total_values(values: Sequence[FloatArray], levels: IntArray) -> FloatArray:
    """Return the total values [n] of levels [n, k]."""
    total: FloatArray = np.sum([value[levels[:, v]] for v, value in enumerate(values)], axis=0)
    return total


def _best_by_cost(ladder: Ladder, values: Sequence[FloatArray], levels: IntArray, reach: int) -> IntArray:
    """Return the most valuable plans [n, k] by linearised cost, at most `reach` levels away in each variable.

    With several limits there is a table for each, and one for the mean of their usages.
    """
    choices = [
        _spread(max(0, level - reach), min(top, level + reach), level)
        for level, top in zip(levels.tolist(), ladder.top.tolist(), strict=True)
    ]
    counts = [len(each) for each in choices]
    trial = np.repeat(levels[None], sum(counts), axis=0)
    trial[np.arange(len(trial)), np.repeat(np.arange(len(levels)), counts)] = np.concatenate(choices)
    worth = [value[chosen] for value, chosen in zip(values, choices, strict=True)]
    trial = np.concatenate([trial, levels[None]])
    limits = [ladder.budget.only([limit]) for limit in ladder.budget.limits]
    usages = [ladder.under(limit).usage(trial) for limit in limits]
    if len(usages) > 1:
        usages.append(np.mean(usages, axis=0))
    found = [levels[None]]
    for usage in usages:
        # The cost of a choice, relative to the variable's smallest choice, with the others as they are.
        costs = [part - part[0] for part in np.split(usage[:-1], np.cumsum(counts)[:-1])]
        held = [cost[chosen == level] for cost, chosen, level in zip(costs, choices, levels, strict=True)]
        # The capacity for all choices: the budget that is left, and the cost of the present choices.
        room = 1 - usage[-1] + np.concatenate(held).sum()
        # Twice the room, because several changes together may cost less than the sum of each alone.
        most = min(float(sum(cost[-1] for cost in costs)), 2 * float(room))
        if most > 0:
            # BINS + 1 is more than any capacity, so such a choice is never taken.
            amounts = [np.minimum(np.round(cost / most * BINS), BINS + 1).astype(np.int64) for cost in costs]
            picks = _table(amounts, worth)
            found.append(np.stack([each[pick] for each, pick in zip(choices, picks, strict=True)], axis=1))
    return np.unique(np.concatenate(found), axis=0)


def _spread(low: int, high: int, level: int) -> IntArray:
    """Return at most `CHOICES` levels between two, evenly spread, and the level itself."""
    spread = np.linspace(low, high, min(CHOICES, high - low + 1)).round().astype(np.int64)
    return np.union1d(spread, [level]).astype(np.int64)


def _table(costs: Sequence[IntArray], values: Sequence[FloatArray]) -> list[IntArray]:
    """Solve the knapsack with one choice a variable for every capacity from 0 to `BINS`.

    Args:
        costs: for each variable int64 [its choices], of which the first is 0.
        values: for each variable float64 [its choices].

    Returns:
        For each variable the choice [capacities] in the most valuable plan of at most that cost.
    """
    capacities = np.arange(BINS + 1)
    best = np.zeros(BINS + 1)
    picks = []
    for cost, value in zip(costs, values, strict=True):
        left = capacities - cost[:, None]
        totals = np.where(left >= 0, best[np.maximum(left, 0)] + value[:, None], -np.inf)
        picks.append(totals.argmax(axis=0))
        best = totals[picks[-1], capacities]
    chosen: list[IntArray] = []
    # Backwards, because each choice leaves its own capacity to the variables before it.
    for cost, pick in zip(reversed(costs), reversed(picks), strict=True):
        chosen.append(pick[capacities].astype(np.int64))
        capacities = capacities - cost[chosen[-1]]
    return chosen[::-1]
