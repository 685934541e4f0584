"""The channel group: the channels that several layers share.

Example:
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
        index: int64 [width, m]. Row c holds the positions along the axis that belong to channel c. m is
            above 1 if a channel spans several positions, as those of a flattened 7 x 7 map do.
    """

    parameter: str
    axis: int
    index: NDArray[np.int64]

    def __repr__(self) -> str:
        """Return the tensor, the axis and the number of channels in one line."""
        return f"<Member {self.parameter}, axis {self.axis}: {len(self.index)} channels>"


@dataclass(frozen=True, eq=False)
class ChannelGroup:
    """Channels that span the same axes. Each channel is kept or dropped on all of them at once.

    Attributes:
        name: the first module that produces the channels. It is unique in a model.
        width: number of channels.
        members: every axis of a parameter or buffer that the channels span.
        frozen: None, or the reason why the group cannot be narrowed.
        crosses: None, or the operator that normalises over the channels (a LayerNorm, a softmax). Narrowing
            such a group changes the values of the remaining channels by design.
    """

    name: str
    width: int
    members: tuple[Member, ...]
    frozen: str | None = None
    crosses: str | None = None

    def __repr__(self) -> str:
        """Return the name, the width and the state in one line."""
        parts = [f"width {self.width}", f"{len(self.members)} members"]
        parts += [] if self.crosses is None else [f"crosses {self.crosses}"]
        parts += ["free" if self.frozen is None else f"frozen: {self.frozen}"]
        return f"<ChannelGroup {self.name}: {', '.join(parts)}>"

    @property
    def layers(self) -> tuple[str, ...]:
        """Names of the modules whose tensors the group narrows, in model order."""
        return tuple(dict.fromkeys(owner_of(member.parameter)[0] for member in self.members))
