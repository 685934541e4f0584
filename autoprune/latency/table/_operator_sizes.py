"""Own sizes: which numbers of a model's operators follow the widths of its groups, and how.

A graph that was seen at several widths (the dense ones first) shows every dimension as a row of numbers.
The labels of the traced model know each size that can occur, `constant + sum(times * width)`; the row tells
which.

    sizes = observe(prunable)            # sizes.widths: int64 [observations, groups], what to look at
    sizes.find([64, 23])                 # Size(constant=0, times=(0, 1, 0)), or 64 for [64, 64]
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.cost import axis_size
from autoprune.graph import Prunable
from autoprune.graph.context import Factor
from autoprune.graph.labels import LabelVector
from autoprune.support.arrays import IntArray

MOST_OBSERVATIONS = 4
"""The dense model and at most so many less one narrowed ones: each costs a run or an export."""

_TRIES = 20


@dataclass(frozen=True)
class Size:
    """A dimension that follows the widths.

    Attributes:
        constant: what no group can take away.
        times: for each group of the model, how often its width enters.
    """

    constant: int
    times: tuple[int, ...]

    def at(self, widths: IntArray) -> IntArray:
        """Return the size at widths [groups] or [n, groups], as int64 [] or [n]."""
        return np.asarray(widths @ np.array(self.times, dtype=np.int64) + self.constant)

    @property
    def unit(self) -> tuple[int, Size]:
        """The factor that all its parts share, and the size without it: proportional sizes have one unit."""
        factor = math.gcd(self.constant, *self.times)
        return factor, Size(self.constant // factor, tuple(time // factor for time in self.times))


@dataclass(frozen=True, eq=False)
class Observations:
    """Widths to see a model at, and what a number seen there stands for.

    Attributes:
        widths: int64 [observations, groups]; the dense widths first.
        known: {the numbers that a size has at these widths: the size}.
    """

    widths: IntArray
    known: Mapping[tuple[int, ...], Size]

    def find(self, numbers: Sequence[int]) -> Size | int | None:
        """Return what stands behind a number, given its value at each observation.

        Returns:
            The number where it is always the same; a Size; None where no size of the model explains it.
        """
        if len(set(numbers)) == 1:
            return numbers[0]
        return self.known.get(tuple(numbers))


def observe(prunable: Prunable, seed: int = 0) -> Observations:
    """Choose widths that tell the sizes of a model apart.

    Sizes that they cannot tell apart stay unknown.
    """
    sizes = sorted(set(_sizes(prunable)), key=lambda size: (size.constant, size.times))
    table = np.array([size.times for size in sizes], dtype=np.int64).reshape(len(sizes), len(prunable.groups))
    constants = np.array([size.constant for size in sizes], dtype=np.int64)
    rng = np.random.default_rng(seed)
    rows = [np.array([group.width for group in prunable.groups], dtype=np.int64)]
    while len(rows) < 2 or (len(rows) < MOST_OBSERVATIONS and _alike(rows, table, constants)):
        tries = [_narrow(prunable, rng) for _ in range(_TRIES)]
        rows.append(min(tries, key=lambda row: _alike([*rows, row], table, constants)))
    keys = [tuple(key) for key in _numbers(rows, table, constants).tolist()]
    times = Counter(keys)
    known = {key: size for key, size in zip(keys, sizes, strict=True) if times[key] == 1}
    return Observations(np.stack(rows), known)


def _narrow(prunable: Prunable, rng: np.random.Generator) -> IntArray:
    """Draw widths in the upper three quarters of the groups', different ones for groups of one width.

    Of several groups of one width some stay whole: two of width 2 could only be seen as 1 otherwise.
    """
    row = np.array([group.width for group in prunable.groups], dtype=np.int64)
    by_width: dict[int, list[int]] = {}
    for group in prunable.searchable:
        by_width.setdefault(group.width, []).append(prunable.position[group.name])
    for width, places in by_width.items():
        # Exporters leave out what does nothing at width 1, which makes another graph.
        narrower = np.arange(max(min(2, width - 1), width // 4), width)
        choices = rng.permutation(np.append(narrower, width) if len(places) > len(narrower) else narrower)
        row[places] = np.resize(choices, len(places))[rng.permutation(len(places))]
    return row


def _numbers(rows: Sequence[IntArray], table: IntArray, constants: IntArray) -> IntArray:
    return np.asarray(table @ np.stack(rows).T + constants[:, None])


def _alike(rows: Sequence[IntArray], table: IntArray, constants: IntArray) -> int:
    """Count the sizes that show the numbers of another one, or one number only, as what is constant does."""
    numbers = _numbers(rows, table, constants)
    return len(table) - len(np.unique(numbers, axis=0)) + int((np.ptp(numbers, axis=1) == 0).sum())


def _sizes(prunable: Prunable) -> Iterator[Size]:
    """Iterate over the widths and the sizes of all axes; groups that stay whole are part of the constant.

    A width may be the size of no axis, and yet a number of the model: how many groups a convolution has whose
    groups have two channels each.
    """
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    free = np.isin(np.arange(len(full)), [prunable.position[group.name] for group in prunable.searchable])
    for place in np.flatnonzero(free).tolist():
        yield Size(0, tuple(int(other == place) for other in range(len(full))))
    for labels in _axes(prunable):
        try:
            constant, *times = axis_size(Factor(len(labels), labels), prunable.grouping, len(full))
        except AssertionError:  # an axis that holds a group's channels unequally often
            continue
        if any(moving := np.where(free, times, 0).tolist()):
            fixed = int(full[~free] @ np.array(times)[~free])
            yield Size(constant + fixed, tuple(moving))


def _axes(prunable: Prunable) -> Iterator[LabelVector]:
    """Iterate over the labels of every axis of every value of the graph, parameters included, once each."""
    seen: set[bytes] = set()
    for value in prunable.values.values():
        for part in value if isinstance(value, list) else [value]:
            for labels in part.labels:
                if labels is not None and (key := labels.tobytes()) not in seen:
                    seen.add(key)
                    yield labels
