"""The channel group: channels of many layers that can only be kept or dropped together.

Grouping makes them from labels; criteria rank their channels, spaces choose widths, `rebuild` cuts them.

    group.name, group.width    # "layer1.0.conv1", 64
    group.members[0]           # Member("layer1.0.conv1.weight", axis=0, index of shape [64, 1])
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoprune.graph.orientation import owner_of


@dataclass(frozen=True, eq=False)
class Member:
    """One axis of one parameter or buffer that a group narrows.

    Attributes:
        parameter: full name in the model's `named_parameters` or `named_buffers`.
        axis: the axis that shrinks.
        index: int64 [width, m]; row c holds the positions along the axis that belong to channel c
            (m > 1 where a channel spans several positions, such as a flattened 7 x 7 map).
    """

    parameter: str
    axis: int
    index: NDArray[np.int64]

    def __repr__(self) -> str:
        """Return its place and how many channels lie there, in one line."""
        return f"<Member {self.parameter}, axis {self.axis}: {len(self.index)} channels>"


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that are kept or dropped together, wherever they appear.

    Attributes:
        name: the module that produces the channels first; unique in a model.
        width: number of channels.
        members: every parameter axis that the channels span.
        frozen: None, or why the group cannot be narrowed.
        crosses: None, or the normalisation over channels that it crosses, so that narrowing it changes
            the function of the remaining channels by design.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    frozen: str | None = None
    crosses: str | None = None

    def __repr__(self) -> str:
        """Return name, width and state in one line."""
        parts = [f"width {self.width}", f"{len(self.members)} members"]
        parts += [] if self.crosses is None else [f"crosses {self.crosses}"]
        parts += ["free" if self.frozen is None else f"frozen: {self.frozen}"]
        return f"<ChannelGroup {self.name}: {', '.join(parts)}>"

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modules whose tensors the group narrows, in model order."""
        return tuple(dict.fromkeys(owner_of(member.parameter)[0] for member in self.members))
