"""From channel scores to widths within the budget: every variable is raised level by level, in one order.

A heuristic with one threshold for all groups amounts to one order over all steps of all variables. The gate
of a step is the threshold at which the heuristic takes it, and `cut` takes steps until the budget is full.
Warm starts are made this way.

    gates = ranking_gates(ladder.rows, [[np.array([0.1, 0.9, 0.4])], ...])
    levels = cut(ladder, gates)                            # int64 [k]: as full as the budget allows
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.space._budget import WINDOW_LOW
from autoprune.space._ladder import Ladder
from autoprune.space._levels import Levels
from autoprune.support.arrays import FloatArray, IntArray


def cut(ladder: Ladder, gates: Sequence[FloatArray]) -> IntArray:
    """Raise all variables from their lowest levels, the step with the highest gate first, while that fits.

    Bisection finds the lowest threshold at which the budget is met. If that leaves the plan below the window,
    the later steps are taken in the same order, except those that do not fit.

    Args:
        ladder: the levels of k variables.
        gates: for each variable float64 [its levels - 1]. Entry i is the threshold at which level i gives way
            to level i + 1. The steps of a variable come one after the other, so a gate that is above an
            earlier one of its variable counts as the earlier one. Equal gates keep the order of
            `uniform_gates`.

    Returns:
        Levels int64 [k] whose usage is at most 1.
    """
    order = _order(ladder.rows, gates)
    variables = len(ladder.rows)
    fits, over = 0, len(order) + 1
    while over - fits > 1:
        middle = (fits + over) // 2
        if _usage(ladder, np.bincount(order[:middle], minlength=variables)) <= 1.0:
            fits = middle
        else:
            over = middle
    levels = np.bincount(order[:fits], minlength=variables).astype(np.int64)
    return _fill(ladder, levels, order[fits:])


def uniform_gates(rows: Sequence[Levels]) -> list[FloatArray]:
    """Return gates that give every variable the same keep ratio, each rounded to its nearest level."""
    return [-row.edges for row in rows]


def ranking_gates(rows: Sequence[Levels], scores: Sequence[Sequence[FloatArray]]) -> list[FloatArray]:
    """Return gates that keep the channels whose score reaches one threshold, the same for all groups.

    A level is reached if the share of kept channels rounds to it, because levels of tied groups, or under a
    divisor, cannot follow the ranking channel by channel.

    Args:
        rows: the levels of each variable.
        scores: for each variable the scores of each of its groups, float64 [width].
    """
    gates = []
    for row, groups in zip(rows, scores, strict=True):
        descending = -np.sort(-np.concatenate(groups))
        needed = np.ceil(row.edges * len(descending) - 1e-9).astype(np.int64)
        # The score of the last needed channel is the threshold at which that many are kept.
        gates.append(descending[np.clip(needed, 1, len(descending)) - 1])
    return gates


def drop_gates(
    rows: Sequence[Levels],
    ratios: Sequence[FloatArray],
    scores: Sequence[FloatArray],
    baseline: float,
) -> list[FloatArray]:
    """Return gates that cut every variable as far as its score drops by no more than one tolerance.

    Args:
        rows: the levels of each variable.
        ratios: for each variable the keep ratios below 1 at which it alone was cut, ascending, float64 [m].
        scores: for each variable the scores of these cuts, float64 [m].
        baseline: the score of the model with nothing cut.

    Reference: the search of FastNAS in NVIDIA's Model Optimizer: one threshold for the sensitivity of all
        layers, bisected to the budget. Differs: scores are made monotone by least squares, not by a running
        maximum, and interpolated between the measured ratios.
    """
    gates = []
    for row, at, measured in zip(rows, ratios, scores, strict=True):
        points = np.concatenate([at, [1.0]])
        fitted = isotonic(np.concatenate([measured, [baseline]]))
        gates.append(baseline - np.interp(row.ratios[:-1], points, fitted))
    return gates


def isotonic(values: FloatArray) -> FloatArray:
    """Return the nondecreasing sequence nearest to `values` [n] in least squares.

    Reference: Barlow et al., "Statistical Inference under Order Restrictions", 1972, section 1.2.
    """
    from scipy.optimize import isotonic_regression  # takes a while to import

    fitted: FloatArray = isotonic_regression(np.asarray(values, dtype=np.float64)).x
    return fitted


def _order(rows: Sequence[Levels], gates: Sequence[FloatArray]) -> IntArray:
    """Return the variable [steps] that each step raises, the first step first."""
    tops = [len(row.ratios) - 1 for row in rows]
    variable = np.repeat(np.arange(len(rows)), tops)
    level = np.concatenate([np.arange(top) for top in tops])
    ratio = np.concatenate([row.edges for row in rows])
    gate = np.concatenate([np.minimum.accumulate(each) if len(each) else each for each in gates])
    # np.lexsort sorts by its last key first.
    order: IntArray = variable[np.lexsort((variable, level, ratio, -gate))].astype(np.int64)
    return order


def _fill(ladder: Ladder, levels: IntArray, order: IntArray) -> IntArray:
    """Take the steps that still fit, in order, until the plan lies in the window."""
    # A step costs more the wider the others are: if it does not fit now, it never will.
    blocked = np.zeros(len(levels), dtype=bool)
    usage = _usage(ladder, levels)
    for variable in order:
        if usage >= WINDOW_LOW or blocked.all():
            break
        if blocked[variable]:
            continue
        raised = levels.copy()
        raised[variable] += 1
        raised_usage = _usage(ladder, raised)
        if raised_usage <= 1.0:
            levels, usage = raised, raised_usage
        else:
            blocked[variable] = True
    return levels


def _usage(ladder: Ladder, levels: IntArray) -> float:
    return float(ladder.usage(levels[None])[0])
