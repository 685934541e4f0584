"""Translate a plan into the positions that it keeps along each axis of each tensor.

Example:
    table = PositionTable.of(prunable.groups, prunable.shapes)
    table.kept({"conv1": np.array([0, 2])})     # {"conv1.weight": {0: array([0, 2])}, ...}
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.graph.groups import ChannelGroup

KeepPositions = Mapping[str, Mapping[int, NDArray[np.int64]]]
"""{parameter or buffer: {axis: sorted int64 positions kept}}, without the axes that stay whole."""


@dataclass(frozen=True, eq=False)
class PositionTable:
    """The channel at each position of all axes, in one array, so that a plan takes one pass over it.

    The array consists of segments. Axes that hold the same channels in the same order (a convolution's
    outputs, its bias, its normalisation) share one segment, and one array of kept positions.

    Attributes:
        groups: {group name: (number of its first channel, its width)}. All channels are numbered in a row.
        channels: int64 [positions], the number of the channel at each position. The number after the last
            channel marks a position of no group.
        starts: int64 [segments + 1], the first position of each segment, and the end.
        axes: for each segment the (tensor, axis) pairs that share it.
    """

    groups: Mapping[str, tuple[int, int]]
    channels: NDArray[np.int64]
    starts: NDArray[np.int64]
    axes: tuple[tuple[tuple[str, int], ...], ...]

    @staticmethod
    def of(groups: Sequence[ChannelGroup], shapes: Mapping[str, tuple[int, ...]]) -> PositionTable:
        """Make the table from the members of the groups. `shapes` holds the dense shapes by name."""
        offsets = np.cumsum([0, *(group.width for group in groups)])
        none = offsets[-1]
        on_axis: dict[tuple[str, int], NDArray[np.int64]] = {}
        for group, offset in zip(groups, offsets.tolist(), strict=False):
            numbers = np.arange(offset, offset + group.width)[:, None]
            for member in group.members:
                place = (member.parameter, member.axis)
                if place not in on_axis:
                    on_axis[place] = np.full(shapes[member.parameter][member.axis], none)
                on_axis[place][member.index] = numbers
        shared: dict[bytes, list[tuple[str, int]]] = {}
        for place, channels in on_axis.items():
            shared.setdefault(channels.tobytes(), []).append(place)
        segments = [on_axis[places[0]] for places in shared.values()]
        return PositionTable(
            {group.name: (int(o), group.width) for group, o in zip(groups, offsets, strict=False)},
            np.concatenate([*segments, np.empty(0, np.int64)]),
            np.cumsum([0, *map(len, segments)]),
            tuple(tuple(places) for places in shared.values()),
        )

    def kept(self, plan: Mapping[str, NDArray[np.int64]]) -> dict[str, dict[int, NDArray[np.int64]]]:
        """Return the positions that `plan` keeps, without the axes that stay whole.

        The plan must fit the groups (see `Prunable.check`).
        """
        # The last entry is for positions of no group, which every plan keeps.
        keep = np.ones(sum(width for _, width in self.groups.values()) + 1, bool)
        for name, index in plan.items():
            start, width = self.groups[name]
            keep[start : start + width] = False
            keep[start + index] = True
        # One pass over all axes, cut into segments afterwards, because a search does this for each candidate.
        places = np.flatnonzero(keep[self.channels])
        bounds = np.searchsorted(places, self.starts).tolist()
        starts = self.starts.tolist()
        positions: dict[str, dict[int, NDArray[np.int64]]] = {}
        for number, axes in enumerate(self.axes):
            first, last = bounds[number], bounds[number + 1]
            if last - first < starts[number + 1] - starts[number]:
                kept = places[first:last] - starts[number]
                for tensor, axis in axes:
                    positions.setdefault(tensor, {})[axis] = kept
        return positions
