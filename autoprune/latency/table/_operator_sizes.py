"""Find which numbers of a model's operators follow the widths of its groups, and how.

A graph is observed at several widths, the dense ones first, so that each of its numbers becomes a row of
values. The labels of the traced model give every size that can occur, `constant + sum(times * width)`. The
row identifies the size.

Example:
    sizes = observe(prunable)            # sizes.widths: int64 [observations, groups] to observe at
    sizes.find([64, 23])                 # Size(constant=0, times=(0, 1, 0)), or 64 for [64, 64]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.cost.formula import axis_size
from autoprune.cost.polynomial import Size, SizeTable
from autoprune.graph import Prunable
from autoprune.graph.labels import LabelVector
from autoprune.support.arrays import IntArray

MOST_OBSERVATIONS = 4
"""Largest number of observations with the dense one. Each costs a run or an export."""

_TRIES = 20
"""Number of random widths from which the most informative are taken."""


@dataclass(frozen=True, eq=False)
class Observations:
    """Widths at which to observe a model, and the sizes that they identify.

    Attributes:
        widths: int64 [observations, groups], the dense widths first.
        known: {values of a size at these widths: the size}.
    """

    widths: IntArray
    known: Mapping[tuple[int, ...], Size]

    def find(self, numbers: Sequence[int]) -> Size | int | None:
        """Return the size behind a number, given its value at each observation.

        Returns:
            The number itself if it is always the same, otherwise a Size, or None if no size of the model
            explains it.
        """
        if len(set(numbers)) == 1:
            return numbers[0]
        return self.known.get(tuple(numbers))


def observe(prunable: Prunable) -> Observations:
    """Choose widths that distinguish the sizes of a model. Sizes that stay ambiguous are left out."""
    sizes = sorted(set(_sizes(prunable)), key=lambda size: (size.constant, size.times))
    table = SizeTable.of(sizes, len(prunable.groups))
    rng = np.random.default_rng(0)
    rows = [np.array([group.width for group in prunable.groups], dtype=np.int64)]
    # One narrowed model is always needed: a number that never changes would pass for a constant.
    while len(rows) < 2 or (len(rows) < MOST_OBSERVATIONS and _count_ambiguous(rows, table)):
        tries = [_narrow(prunable, rng) for _ in range(_TRIES)]
        rows.append(min(tries, key=lambda row: _count_ambiguous([*rows, row], table)))
    keys = [tuple(key) for key in table.at(np.stack(rows)).astype(np.int64).tolist()]
    times = Counter(keys)
    known = {key: size for key, size in zip(keys, sizes, strict=True) if times[key] == 1}
    return Observations(np.stack(rows), known)


def _narrow(prunable: Prunable, rng: np.random.Generator) -> IntArray:
    """Draw widths above a quarter of the groups' full widths, different ones for groups of equal width.

    Some of several groups with few channels stay whole. Otherwise two groups of width 2 would both get 1.
    """
    row = np.array([group.width for group in prunable.groups], dtype=np.int64)
    by_width: dict[int, list[int]] = {}
    for group in prunable.searchable:
        by_width.setdefault(group.width, []).append(prunable.position[group.name])
    for width, places in by_width.items():
        # At width 1 exporters leave out operators that have no effect there, which changes the graph.
        narrower = np.arange(max(min(2, width - 1), width // 4), width)
        choices = rng.permutation(np.append(narrower, width) if len(places) > len(narrower) else narrower)
        row[places] = np.resize(choices, len(places))[rng.permutation(len(places))]
    return row


def _count_ambiguous(rows: Sequence[IntArray], table: SizeTable) -> int:
    """Count the ambiguous sizes: those with the same values as another one, or with a constant value."""
    numbers = table.at(np.stack(rows))
    return len(numbers) - len(np.unique(numbers, axis=0)) + int((np.ptp(numbers, axis=1) == 0).sum())


def _sizes(prunable: Prunable) -> Iterator[Size]:
    """Iterate over the widths and the sizes of all axes. Groups that stay whole are part of the constant.

    A width may be a number of the model without being the size of an axis. An example is the number of groups
    of a convolution with two channels in each group.
    """
    full = np.array([group.width for group in prunable.groups], dtype=np.int64)
    free = np.isin(np.arange(len(full)), [prunable.position[group.name] for group in prunable.searchable])
    for place in np.flatnonzero(free).tolist():
        yield Size(0, tuple(int(other == place) for other in range(len(full))))
    for labels in _axes(prunable):
        size, is_exact = axis_size(len(labels), labels, prunable.grouping)
        moving = np.where(free, size.times, 0)
        if is_exact and moving.any():
            fixed = int(full @ (np.array(size.times) - moving))
            yield Size(size.constant + fixed, tuple(moving.tolist()))


def _axes(prunable: Prunable) -> Iterator[LabelVector]:
    """Iterate over the labels of every axis of every value of the graph, parameters included, once each."""
    seen: set[bytes] = set()
    for value in prunable.values.values():
        for part in value if isinstance(value, list) else [value]:
            for labels in part.labels:
                if labels is not None and (key := labels.tobytes()) not in seen:
                    seen.add(key)
                    yield labels
