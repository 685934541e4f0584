"""The widths that the groups of one variable may take, as levels: 0 is the smallest, each next one is wider.

allowed_widths(16, step=4, low=0.1, high=1.0, floor=1)         # array([ 4,  8, 12, 16])
levels = make_levels("stage1", [0, 3], [16, 16], [[4, 8, 12, 16]] * 2)
levels.of_ratio(np.array([0.4]))                               # array([1]): widths 8 and 8
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.graph.groups import ChannelGroup
from autoprune.support.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Levels:
    """The discrete choices of one variable.

    Attributes:
        name: the variable's name.
        columns: positions of its groups among the model's groups, int64 [g].
        widths: int64 [levels, g], nondecreasing along axis 0.
        ratios: float64 [levels], the keep ratio that stands for each level.
        edges: float64 [levels - 1]. A ratio at or above edges[i] lies in level i + 1 or higher.
    """

    name: str
    columns: IntArray
    widths: IntArray
    ratios: FloatArray
    edges: FloatArray

    def of_ratio(self, ratios: FloatArray) -> IntArray:
        """Return the level that each ratio lies in, same shape."""
        return np.searchsorted(self.edges, ratios, side="right").astype(np.int64)


def unit_step(group: ChannelGroup, divisor: int) -> int:
    """Return the smallest number of channels whose every narrowed axis is a multiple of the divisor.

    A channel with m positions on an axis counts m there.
    """
    positions = {int(member.index.shape[1]) for member in group.members} or {1}
    return math.lcm(*(divisor // math.gcd(divisor, m) for m in positions))


def relaxed_step(group: ChannelGroup, divisor: int) -> int:
    """Return the unit step of the largest divisor of `divisor` that leaves the group at least two widths."""
    for smaller in _divisors(divisor):
        step = unit_step(group, smaller)
        if group.width >= 2 * step:
            return step
    return 1


@functools.cache
def _divisors(number: int) -> tuple[int, ...]:
    """Return the divisors of a number, the largest first. One search for them serves many groups."""
    return tuple(each for each in range(number, 0, -1) if number % each == 0)


def allowed_widths(width: int, *, step: int, low: float, high: float, floor: int) -> IntArray:
    """Return the widths between the ratios `low` and `high` that are multiples of the step, or the full one.

    If no width lies in that range, only the nearest one above `low` is allowed.
    """
    # A little tolerance, so that the rounding of floats neither adds nor excludes a width.
    least = max(step, min(floor, width), math.ceil(low * width - 1e-9))
    most = math.floor(high * width + 1e-9)
    choices = [w for w in (*range(step, width, step), width) if w >= least]
    return np.array([w for w in choices if w <= most] or choices[:1], dtype=np.int64)


def make_levels(
    name: str, columns: Sequence[int], full: Sequence[int], allowed: Sequence[IntArray]
) -> Levels:
    """Join the allowed widths of tied groups into levels, each group at its width nearest to a common ratio.

    Args:
        name: the variable's name.
        columns: positions of the groups among the model's groups.
        full: the groups' dense widths.
        allowed: for each group its allowed widths, ascending.
    """
    # A level ends at each ratio from which any of the groups is nearer to its next width.
    own_edges = [(widths[1:] + widths[:-1]) / 2 / dense for widths, dense in zip(allowed, full, strict=True)]
    edges = np.unique(np.concatenate(own_edges)) if own_edges else np.empty(0)
    inside = np.concatenate([[-np.inf], edges])
    columns_of = [
        widths[np.searchsorted(own, inside, side="right")]
        for widths, own in zip(allowed, own_edges, strict=True)
    ]
    widths = np.stack(columns_of, axis=1).astype(np.int64)
    return Levels(
        name, np.asarray(columns, dtype=np.int64), widths, _standing_ratios(widths, full, edges), edges
    )


def widths_at(rows: Sequence[Levels], groups: Sequence[str], levels: Mapping[int, int]) -> dict[str, int]:
    """Return {group name: width} of the groups of some variables.

    Args:
        rows: the levels of all variables.
        groups: names of all the model's groups.
        levels: {position of a variable: its level}.
    """
    return {
        groups[column]: int(width)
        for v, level in levels.items()
        for column, width in zip(rows[v].columns, rows[v].widths[level], strict=True)
    }


def _standing_ratios(widths: IntArray, full: Sequence[int], edges: FloatArray) -> FloatArray:
    """Return a ratio inside each level: the widest group's own if it lies inside, else the middle."""
    shares = widths / np.asarray(full, dtype=np.float64)
    ratios: FloatArray = shares[:, int(np.argmax(full))].copy()
    ratios[0], ratios[-1] = shares[0].min(), shares[-1].max()
    for level in range(1, len(ratios) - 1):
        lower, upper = edges[level - 1], edges[level]
        if not lower <= ratios[level] < upper:
            ratios[level] = (lower + upper) / 2
    return ratios
