"""Own the design of a table: which candidates are measured, so that every operator is seen at all its sizes.

Whole candidates are measured, operator by operator: there the caches are as they are in use. An orthogonal
array of strength 2 gives the groups of any operator each pair of levels once, whatever the number of
groups. Levels follow the stairs: they are odd multiples of 1, 2, 4, 8 and 16, in an order that is drawn. Some
candidates lie on steps as a whole, as do most models that are deployed: there operators need no conversions
between each other.

    widths = design(prunable, operators)         # int64 [63, groups]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.graph import Prunable
from autoprune.latency.table._operators import Operator
from autoprune.support.arrays import IntArray

LEVELS = 7
"""A prime, as the array needs; it has a candidate for each pair of levels."""

LEVELS_WHOLE = 5
"""Where candidates are timed whole: they take long to get ready, and few coefficients are fitted to them."""

_SMALLEST_RATIO = 0.1

_STEPS = (1, 2, 4, 8, 16, 1)
"""What the levels are odd multiples of: odd widths, even ones, and each kind that kernels are made for."""

_STEPPED = (8, 16)
"""What all widths of a candidate are multiples of; one after the other, for each of `levels` candidates."""

_SHIFT = 0.25
"""A width moves by at most this share to come to lie on a step."""


def design(prunable: Prunable, operators: Sequence[Operator], levels: int = LEVELS) -> IntArray:
    """Return the widths [levels^2 + 2 levels, groups] of the candidates to measure.

    The first levels^2 are those of an orthogonal array, the others some of them with all widths on steps.

    Args:
        prunable: the traced model; groups that are frozen stay whole.
        operators: groups that meet in one take their levels from different columns of the array.
        levels: a prime.
    """
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    colours = _colours(operators, len(full))
    array = orthogonal_array(levels)
    rng = np.random.default_rng(levels)
    widths = np.repeat(full[None], len(array), axis=0)
    for group in prunable.searchable:
        place = prunable.position[group.name]
        # Levels of one colour are shuffled group by group: no two groups follow one another everywhere.
        order = rng.permutation(levels)
        column = array[:, colours[place] % array.shape[1]]
        widths[:, place] = width_levels(group.width, levels, rng)[order[column]]
    return np.concatenate([widths, _stepped(prunable, widths, levels, rng)])


def _stepped(prunable: Prunable, widths: IntArray, levels: int, rng: np.random.Generator) -> IntArray:
    """Move the widths of some candidates to multiples of one step each."""
    chosen = widths[rng.permutation(len(widths))[: len(_STEPPED) * levels]]
    steps = np.resize(_STEPPED, len(chosen))
    for group in prunable.searchable:
        place = prunable.position[group.name]
        within = np.minimum(steps, group.width)
        nearest = np.maximum(np.rint(chosen[:, place] / within), 1).astype(np.int64) * within
        chosen[:, place] = np.minimum(nearest, group.width)
    return chosen


def orthogonal_array(levels: int) -> IntArray:
    """Return an array [levels^2, levels + 1] in whose every two columns each pair of levels occurs once.

    Args:
        levels: a prime.

    Reference: Hedayat, Sloane and Stufken, Orthogonal Arrays (1999), theorem 3.1 with t = 2.
    """
    slope, start = np.divmod(np.arange(levels**2), levels)
    columns = [(slope * place + start) % levels for place in range(levels)]
    return np.stack([*columns, slope], axis=1).astype(np.int64)


def width_levels(width: int, levels: int, rng: np.random.Generator) -> IntArray:
    """Return the widths [levels], from small to whole, that a group is measured at; small groups repeat some.

    Those below the whole are odd multiples of different steps, in an order that is drawn.
    """
    if width <= levels:
        return np.linspace(1, width, levels).round().astype(np.int64)
    shares = np.linspace(_SMALLEST_RATIO, 1.0, levels)[:-1]
    shares[1:] += rng.uniform(-0.25, 0.25, levels - 2) / levels
    steps = rng.permutation(np.resize(_STEPS, levels - 1))
    chosen = [_odd_multiple(share * width, step) for share, step in zip(shares, steps.tolist(), strict=True)]
    return np.sort(np.clip([*chosen, width], 1, width)).astype(np.int64)


def _odd_multiple(wanted: float, step: int) -> int:
    """Return the odd multiple of the step that is next, or of the largest half, quarter ... that is near."""
    while True:
        nearest = step * (2 * max(0, round((wanted / step - 1) / 2)) + 1)
        if step == 1 or abs(nearest - wanted) <= _SHIFT * wanted:
            return nearest
        step //= 2


def _colours(operators: Sequence[Operator], groups: int) -> list[int]:
    """Give groups that meet in an operator different numbers, as few as a greedy pass finds."""
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
