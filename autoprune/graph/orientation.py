"""Own three answers: whose weight is a parameter, along which axis its outputs lie, what grouped ones lose.

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

    A transposed convolution that loses whole groups has these along axis 0 of its weight.
    """
    if isinstance(module, _ConvTransposeNd):
        whole = module.groups > 1 and not keeps_groups(module.groups, module.in_channels // module.groups)
        return 0 if whole else 1
    return 1 if isinstance(module, nn.Embedding | nn.EmbeddingBag) else 0


def keeps_groups(groups: int, inputs: int) -> bool:
    """Tell whether a convolution, `groups` of so many inputs each, keeps all groups and narrows each.

    Otherwise it loses whole groups, and each keeps its width: whichever leaves more widths to choose from. A
    depthwise convolution loses groups; one of 2 groups, for which half is too coarse a step, narrows them.
    """
    return groups < inputs


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
