"""Own two answers: whose weight is a parameter, and which axis of it holds the channels that are computed?

Grouping names groups by them, criteria rank filters by them, and users freeze layers by them.

    owner_of("conv.parametrizations.weight.original0")      # ("conv", "weight")
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


def owner_of(name: str) -> tuple[str, str]:
    """Return the path of the module that uses a parameter or buffer, and what the module calls it.

    They differ from what `name` says where weight norm, spectral norm or another parametrization stores a
    weight as several tensors.
    """
    path, parametrized, stored = f".{name}".partition(".parametrizations.")
    if parametrized:
        return path[1:], stored.partition(".")[0]
    path, _, leaf = name.rpartition(".")
    plain = next((leaf.removesuffix(end) for end in _STORED if leaf.endswith(f"weight{end}")), leaf)
    return path, plain


_STORED = ("_g", "_v", "_orig")
"""What torch.nn.utils.weight_norm and spectral_norm put behind the name of the weight that they replace."""
