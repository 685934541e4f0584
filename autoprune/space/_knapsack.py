"""The most valuable levels that the budget can carry: a knapsack over values, with exact costs.

values = channel_values(ladder.rows, scores)           # the value of each level of each variable
levels = knapsack(ladder, values)                      # int64 [k]

Costs are products of widths, so the cost of a channel depends on the widths of others. A Lagrangian takes the
best level of each variable at a price per cost with the others held, and repeats that until nothing changes.
From there a dynamic programme changes all variables together. Single levels are added and pairs exchanged
under exact costs. In small spaces a search with bounds then finds the best plan of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from autoprune.space._allocation import cut, uniform_gates
from autoprune.space._dynamic import ROUNDING, improved, total_values
from autoprune.space._exhaustive import best_plan
from autoprune.space._fill import exchanges
from autoprune.space._ladder import Ladder
from autoprune.space._levels import Levels
from autoprune.support.arrays import FloatArray, IntArray

ROUNDS = 20
"""Linearisations at most. They mostly settle after five."""

POLISHED = 3
"""Plans of the Lagrangian that are polished, since its rounds may end in a cycle of several."""

IMPROVED = 2
"""Polished plans from which a dynamic programme goes on."""

PROVED = 2_000
"""Beginnings of plans that may stay open in the search for the best plan of all."""

BISECTIONS = 50
EVALUATED = 200_000
"""Exchanges that are tried in all, at most: bounds the time in spaces of hundreds of variables."""


def channel_values(rows: Sequence[Levels], scores: Sequence[Sequence[FloatArray]]) -> list[FloatArray]:
    """Return the value of each level of each variable, float64 [levels]: the best channels' scores, summed.

    Args:
        rows: the levels of each variable.
        scores: for each variable the scores of each of its groups, float64 [width], none negative.
    """
    values = []
    for row, groups in zip(rows, scores, strict=True):
        sums = [np.cumsum(-np.sort(-np.asarray(group, dtype=np.float64))) for group in groups]
        kept = [total[widths - 1] for total, widths in zip(sums, row.widths.T, strict=True)]
        values.append(np.sum(kept, axis=0))
    return values


def error_values(rows: Sequence[Levels], errors: Sequence[Sequence[FloatArray]]) -> list[FloatArray]:
    """Return the value of each level of each variable, float64 [levels]: the error that it saves.

    Args:
        rows: the levels of each variable.
        errors: for each variable the errors of each of its groups, float64 [width + 1], nonincreasing.
    """
    values = []
    for row, groups in zip(rows, errors, strict=True):
        lost = np.sum([group[widths] for group, widths in zip(groups, row.widths.T, strict=True)], axis=0)
        values.append(lost[0] - lost)
    return values


def knapsack(ladder: Ladder, values: Sequence[FloatArray]) -> IntArray:
    """Choose levels of nearly the largest total value whose usage is at most 1.

    Args:
        ladder: the levels of k variables.
        values: for each variable float64 [its levels], nondecreasing.

    Returns:
        Levels int64 [k].

    Reference: Shen et al., "Structural Pruning via Latency-Saliency Knapsack", NeurIPS 2022, section 3.
        Differs: costs come from a formula in place of a latency table. A Lagrangian with exchanges replaces
        the augmented dynamic programme, which needs costs that add up. There is one cut in place of many
        with training between them.
    """
    levels = cut(ladder, uniform_gates(ladder.rows))
    reached = {levels.tobytes(): levels}
    for _ in range(ROUNDS):
        levels = _priced(ladder, values, _marginal_costs(ladder, levels))
        # The rounds have settled, or they repeat a cycle.
        if levels.tobytes() in reached:
            break
        reached[levels.tobytes()] = levels
    polished = [_polish(ladder, values, each) for each in _best(values, reached.values(), POLISHED)]
    for each in _best(values, polished, IMPROVED):
        polished.append(_polish(ladder, values, improved(ladder, values, each)))
    (best,) = _best(values, polished, 1)
    proved = best_plan(ladder, values, best, PROVED)
    return best if proved is None else proved


def _best(values: Sequence[FloatArray], plans: Iterable[IntArray], count: int) -> list[IntArray]:
    """Return the most valuable plans, each once."""
    distinct = {plan.tobytes(): plan for plan in plans}
    return sorted(distinct.values(), key=lambda plan: -_value(values, plan))[:count]


def _polish(ladder: Ladder, values: Sequence[FloatArray], levels: IntArray) -> IntArray:
    return _exchange(ladder, values, _add(ladder, values, levels))


def _marginal_costs(ladder: Ladder, levels: IntArray) -> list[FloatArray]:
    """Return the usage at each level of each variable, all others as they are, less that of its lowest."""
    costs = []
    for variable, row in enumerate(ladder.rows):
        trial = np.repeat(levels[None], len(row.ratios), axis=0)
        trial[:, variable] = np.arange(len(row.ratios))
        usage = ladder.usage(trial)
        costs.append(usage - usage[0])
    return costs


def _priced(ladder: Ladder, values: Sequence[FloatArray], costs: Sequence[FloatArray]) -> IntArray:
    """Bisect the price per cost to the lowest at which the variables' best levels fit the budget together."""

    def at(price: float) -> IntArray:
        chosen = [int(np.argmax(value - price * cost)) for value, cost in zip(values, costs, strict=True)]
        return np.array(chosen, dtype=np.int64)

    slopes = [
        (value[-1] - value[0]) / cost[-1] for value, cost in zip(values, costs, strict=True) if cost[-1] > 0
    ]
    # The right price is near the value that a variable gains per cost, but plans differ by many orders of
    # magnitude in both, so its logarithm is bisected in a wide range.
    scale = max([*slopes, 1e-300])
    low, high = np.log(scale) - 40.0, np.log(scale) + 40.0
    fitting = np.zeros(len(values), dtype=np.int64)
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        levels = at(float(np.exp(middle)))
        if ladder.usage(levels[None])[0] <= 1.0:
            fitting, high = levels, middle
        else:
            low = middle
    return fitting


def _add(ladder: Ladder, values: Sequence[FloatArray], levels: IntArray) -> IntArray:
    """Raise single levels while any fits, the one with the most value for its cost first."""
    steps = np.eye(len(levels), dtype=np.int64)
    while True:
        raised = levels + steps
        allowed = np.flatnonzero(levels < ladder.top)
        usage = ladder.usage(raised[allowed])
        allowed, usage = allowed[usage <= 1.0], usage[usage <= 1.0]
        if not len(allowed):
            return levels
        gain = np.array([np.diff(values[v])[levels[v]] for v in allowed.tolist()])
        # A step may cost nothing: under several limits, one that is not the fullest.
        paid = np.maximum(usage - ladder.usage(levels[None])[0], 1e-12)
        levels = raised[allowed[np.argmax(gain / paid)]]


def _exchange(ladder: Ladder, values: Sequence[FloatArray], levels: IntArray) -> IntArray:
    """Move a few levels from one variable to another while that gains value and fits."""
    if len(levels) < 2:
        return levels
    moves = exchanges(len(levels))
    least = ROUNDING * _value(values, ladder.top)
    for _ in range(max(1, EVALUATED // len(moves))):
        trial = levels + moves  # values are cheap and costs are not, so only moves that gain are costed
        trial = trial[np.all((trial >= 0) & (trial <= ladder.top), axis=1)]
        gain = total_values(values, trial) - _value(values, levels)
        trial, gain = trial[gain > least], gain[gain > least]
        fits = np.flatnonzero(ladder.usage(trial) <= 1.0)
        if not len(fits):
            return levels
        levels = _add(ladder, values, trial[fits[np.argmax(gain[fits])]])
    return levels


def _value(values: Sequence[FloatArray], levels: IntArray) -> float:
    return float(total_values(values, levels[None])[0])
