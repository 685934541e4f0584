"""Orientation of weights: the module that uses a tensor, and the axis of its output channels.

Example:
    owner_of("conv.parametrizations.weight.original0")      # ("conv", "weight")
    output_axis(nn.Conv2d(3, 8, 1))              # 0
    output_axis(nn.ConvTranspose2d(3, 8, 1))     # 1
"""

from __future__ import annotations

from torch import nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

WITH_KERNELS: list[type[nn.Module]] = [_ConvNd]
"""Classes whose weights have the axes of a kernel, which hold no channels, behind their first two axes."""


def output_axis(module: nn.Module) -> int:
    """Return the axis of the module's weight that holds its output channels.

    For a transposed convolution that loses whole groups, axis 0 holds the groups.
    """
    if isinstance(module, _ConvTransposeNd):
        whole = module.groups > 1 and not keeps_groups(module.groups, module.in_channels // module.groups)
        return 0 if whole else 1
    return 1 if isinstance(module, nn.Embedding | nn.EmbeddingBag) else 0


def keeps_groups(groups: int, inputs: int) -> bool:
    """Return whether pruning a grouped convolution keeps all its groups and narrows each of them.

    Otherwise it drops whole groups, and each group keeps its width. The rule takes the choice that offers
    more widths: a depthwise convolution drops groups, and a convolution of 2 groups narrows both.

    Args:
        groups: number of groups.
        inputs: number of input channels of each group.
    """
    return groups < inputs


def owner_of(name: str) -> tuple[str, str]:
    """Return the path of the module that uses a parameter or buffer, and its name in that module.

    These differ from the two parts of `name` if a parametrization, such as weight norm or spectral norm,
    stores a weight as several tensors.
    """
    path, parametrized, stored = f".{name}".partition(".parametrizations.")
    if parametrized:
        return path[1:], stored.partition(".")[0]
    path, _, leaf = name.rpartition(".")
    plain = next((leaf.removesuffix(end) for end in _STORED if leaf.endswith(f"weight{end}")), leaf)
    return path, plain


_STORED = ("_g", "_v", "_orig")
"""Suffixes that torch.nn.utils.weight_norm and spectral_norm add to the name of the weight."""
