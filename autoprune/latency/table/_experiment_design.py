"""Experiment design of a latency table: candidates that show every operator at all its sizes.

Operators are timed inside whole candidates, because only there the caches are as in real use. An orthogonal
array of strength 2 shows the two groups of an operator each pair of levels once, for any number of groups.
The levels are odd multiples of 1, 2, 4, 8 and 16 in random order, since latency depends on such divisors.
Some candidates have all widths on multiples of one step, like most deployed models: then a runtime need not
convert layouts between operators.

Example:
    widths = design_candidates(prunable, operators)         # int64 [63, groups]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.graph import Prunable
from autoprune.latency.table._operators import Operator
from autoprune.support.arrays import IntArray

LEVELS = 7
"""Number of widths at which each group is measured. The orthogonal array needs a prime."""

LEVELS_WHOLE = 5
"""The same if only whole passes are timed: few coefficients are fitted, and models are slow to prepare."""

_SMALLEST_RATIO = 0.1
"""Keep ratio of the lowest level."""

_STEPS = (1, 2, 4, 8, 16, 1)
"""Steps of which the levels are odd multiples: odd widths, and the multiples for which kernels are made."""

_STEPPED = (8, 16)
"""Steps of the candidates with all widths on multiples of one step. Each step has `levels` candidates."""

_SHIFT = 0.25
"""Largest change of a width, as a share, to make it a multiple of a step."""


def design_candidates(prunable: Prunable, operators: Sequence[Operator], levels: int = LEVELS) -> IntArray:
    """Return the widths [levels^2 + 2 levels, groups] of the candidates to measure.

    The first levels^2 candidates are those of an orthogonal array. The others are some of these with all
    widths moved to multiples of one step.

    Args:
        prunable: the traced model. Its frozen groups stay whole.
        operators: the model's operators. Groups of the same operator take their levels from different columns
            of the array.
        levels: number of widths of each group, a prime.
    """
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    colours = _colours(operators, len(full))
    array = orthogonal_array(levels)
    rng = np.random.default_rng(levels)
    widths = np.repeat(full[None], len(array), axis=0)
    for group in prunable.searchable:
        place = prunable.position[group.name]
        # Groups of one colour share a column, and so do some groups of one operator if there are more colours
        # than columns. Shuffling the levels of the column for each group keeps them uncorrelated.
        order = rng.permutation(levels)
        column = array[:, colours[place] % array.shape[1]]
        widths[:, place] = width_levels(group.width, levels, rng)[order[column]]
    return np.concatenate([widths, _on_one_step(prunable, widths, levels, rng)])


def _on_one_step(prunable: Prunable, widths: IntArray, levels: int, rng: np.random.Generator) -> IntArray:
    """Return some of the candidates, each with its widths moved to multiples of one step."""
    chosen = widths[rng.permutation(len(widths))[: len(_STEPPED) * levels]]
    steps = np.resize(_STEPPED, len(chosen))
    for group in prunable.searchable:
        place = prunable.position[group.name]
        within = np.minimum(steps, group.width)
        nearest = np.maximum(np.rint(chosen[:, place] / within), 1).astype(np.int64) * within
        chosen[:, place] = np.minimum(nearest, group.width)
    return chosen


def orthogonal_array(levels: int) -> IntArray:
    """Return an array [levels^2, levels + 1] in which any two columns contain each pair of levels once.

    Args:
        levels: number of levels, a prime.

    Reference: Hedayat, Sloane and Stufken, Orthogonal Arrays (1999), theorem 3.1 with t = 2.
    """
    slope, start = np.divmod(np.arange(levels**2), levels)
    columns = [(slope * place + start) % levels for place in range(levels)]
    return np.stack([*columns, slope], axis=1).astype(np.int64)


def width_levels(width: int, levels: int, rng: np.random.Generator) -> IntArray:
    """Return the ascending widths [levels] at which a group is measured, the last of them its full width.

    The others are odd multiples of different steps in random order. A group with few channels repeats widths.
    """
    if width <= levels:
        return np.linspace(1, width, levels).round().astype(np.int64)
    shares = np.linspace(_SMALLEST_RATIO, 1.0, levels)[:-1]
    # Shifted levels differ between groups of equal width, so that more sizes of their operators are seen.
    shares[1:] += rng.uniform(-0.25, 0.25, levels - 2) / levels
    steps = rng.permutation(np.resize(_STEPS, levels - 1))
    chosen = [_odd_multiple(share * width, step) for share, step in zip(shares, steps.tolist(), strict=True)]
    return np.sort(np.clip([*chosen, width], 1, width)).astype(np.int64)


def _odd_multiple(wanted: float, step: int) -> int:
    """Return the nearest odd multiple of the step, or of its half, quarter, ... if that is too far away."""
    while True:
        nearest = step * (2 * max(0, round((wanted / step - 1) / 2)) + 1)
        if step == 1 or abs(nearest - wanted) <= _SHIFT * wanted:
            return nearest
        step //= 2


def _colours(operators: Sequence[Operator], groups: int) -> list[int]:
    """Number the groups so that groups of one operator differ, with as few numbers as a greedy pass finds."""
    met: list[set[int]] = [set() for _ in range(groups)]
    for operator in operators:
        inside = {place for size in operator.sizes for place, time in enumerate(size.times) if time}
        for place in inside:
            met[place] |= inside - {place}
    colours = [-1] * groups
    for place in sorted(range(groups), key=lambda place: -len(met[place])):
        taken = {colours[other] for other in met[place]}
        colours[place] = next(colour for colour in range(groups + 1) if colour not in taken)
    return colours
