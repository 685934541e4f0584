"""The groups of a model that a plan leaves, as those of the smaller model, so that plans of passes compose.

A trace of the smaller model alone does not see the layers of dropped blocks. It may name a group after
another layer, number channels in another order, or separate channels that the dense model cuts together.

Example:
    lineage.tie(axes, store)                 # before groups are formed
    lineage.channels(axes, components)       # the group and the number of each component
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.graph.groups import ChannelGroup
from autoprune.graph.labels import Components, LabelStore, LabelVector
from autoprune.graph.propagate import ParameterAxes


@dataclass(frozen=True, eq=False)
class Lineage:
    """The groups that a smaller model inherits.

    Attributes:
        groups: their channels are those that the plan keeps. Positions are those of the smaller model.
    """

    groups: tuple[ChannelGroup, ...] = ()

    def tie(self, axes: ParameterAxes, store: LabelStore) -> None:
        """Tie the labels of each channel, and freeze those of groups that are frozen."""
        for group in self.groups:
            columns = list(_columns(group, axes))
            for column in columns[1:]:
                store.tie(columns[0], column, f"{group.name}: tied in the model before")
            if columns and group.frozen is not None:
                store.freeze(columns[0], group.frozen)

    def channels(self, axes: ParameterAxes, components: Components) -> tuple[LabelVector, LabelVector]:
        """Return int64 [components] twice: the position in `groups`, or -1, and the channel in that group."""
        count = len(np.unique(components.of_label))
        group_of, channel_of = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
        for number, group in enumerate(self.groups):
            for column in _columns(group, axes):
                group_of[components.of_label[column]] = number
                channel_of[components.of_label[column]] = np.arange(group.width)
        return group_of, channel_of


def _columns(group: ChannelGroup, axes: ParameterAxes) -> list[LabelVector]:
    """Return the labels [width] of each column of positions. An axis of size 1 has no labels."""
    found = []
    for member in group.members:
        vector = axes.labels[member.parameter][member.axis]
        if vector is not None:
            found += list(vector[member.index].T)
    return found
