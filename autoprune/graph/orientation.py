"""Own the answer to one question: which axis of a module's weight holds the channels that it computes?

Grouping names groups by it, criteria rank filters by it, and users freeze layers by it.

    output_axis(nn.Conv2d(3, 8, 1))              # 0
    output_axis(nn.ConvTranspose2d(3, 8, 1))     # 1
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvTransposeNd


def output_axis(module: nn.Module) -> int:
    """Return the axis of the module's weight along which its output channels lie.

    A grouped transposed convolution keeps or drops whole groups, which lie along axis 0 of its weight.
    """
    if isinstance(module, _ConvTransposeNd):
        return 1 if module.groups == 1 else 0
    return 1 if isinstance(module, nn.Embedding | nn.EmbeddingBag) else 0
