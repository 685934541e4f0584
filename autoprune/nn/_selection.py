"""Channel selection: each consumer of a shared tensor reads a subset of the tensor's channels.

Example:
    block = nn.Sequential(ChannelSelection(64), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 16, 3))

In a pre-activation ResNet or a DenseNet many layers read one tensor, so a channel of it can only be dropped
for all of them. Behind a selection, the BatchNorm and the convolution lose channels of their own choice, and
the shared tensor stays as it is.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelSelection(nn.Module):
    """Pick channels of a tensor by an index. A new selection picks all of them.

    Place it before the BatchNorm, so that the BatchNorm has no more channels than the layer behind it reads.
    Rebuilding shortens the index together with the layers that read the selected channels.

    Args:
        channels: number of channels of the tensor that it reads, axis 1.

    Attributes:
        index: int64 [selected], a buffer with the positions that are picked.

    Reference: Liu et al., "Learning Efficient Convolutional Networks through Network Slimming", ICCV 2017,
    section 3. In the authors' code the selection follows the BatchNorm, which stays at full width.
    """

    index: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(channels))

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [n, channels, ...] to [n, selected, ...]."""
        return inputs.index_select(1, self.index)

    def extra_repr(self) -> str:
        """Return the number of channels picked."""
        return f"selected={len(self.index)}"
