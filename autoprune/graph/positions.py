"""Own the step from a plan to positions: which positions of which axes of which tensors it keeps.

Made once per prunable, from its groups; `rebuild` and `verify` ask it for each plan.

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
"""{parameter or buffer: {axis: sorted int64 positions kept}}, whole axes left out."""


@dataclass(frozen=True, eq=False)
class PositionTable:
    """All axes of all tensors laid end to end, with the channel at each position.

    Axes on which the same channels lie at the same positions (a convolution's outputs, its bias, its
    normalisation) share one stretch of the table and get one array between them.

    Attributes:
        groups: {group: (where its channels start, its width)} in one numbering of all channels.
        channels: int64 [positions], the number of the channel there; the last number is of no group.
        starts: int64 [stretches + 1], where each stretch starts.
        axes: for each stretch the (tensor, axis) that it stands for.
    """

    groups: Mapping[str, tuple[int, int]]
    channels: NDArray[np.int64]
    starts: NDArray[np.int64]
    axes: tuple[tuple[tuple[str, int], ...], ...]

    @staticmethod
    def of(groups: Sequence[ChannelGroup], shapes: Mapping[str, tuple[int, ...]]) -> PositionTable:
        """Lay out the axes that the groups' members span."""
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
        stretches = [on_axis[places[0]] for places in shared.values()]
        return PositionTable(
            {group.name: (int(o), group.width) for group, o in zip(groups, offsets, strict=False)},
            np.concatenate([*stretches, np.empty(0, np.int64)]),
            np.cumsum([0, *map(len, stretches)]),
            tuple(tuple(places) for places in shared.values()),
        )

    def kept(self, plan: Mapping[str, NDArray[np.int64]]) -> dict[str, dict[int, NDArray[np.int64]]]:
        """Return the positions that a plan keeps, whole axes left out; the plan must fit the groups."""
        keep = np.ones(sum(width for _, width in self.groups.values()) + 1, bool)
        for name, index in plan.items():
            start, width = self.groups[name]
            keep[start : start + width] = False
            keep[start + index] = True
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
