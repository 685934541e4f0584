"""Replace the convolutions of a model by versatile ones.

Example:
    versatile = to_versatile(resnet, layers=["layer1.0.conv1", "layer1.0.conv2"])
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError, a_kind, suggest
from autoprune.nn._versatile import VersatileConv2d, Windows
from autoprune.support.usercode import entry


@entry(ConfigError, model=nn.Module, layers=(Iterable, type(None)))
def to_versatile(
    model: nn.Module,
    *,
    layers: Sequence[str] | None = None,
    delta: int = 0,
    step: int = 1,
    spatial: bool = True,
    windows: Windows = "weight",
) -> nn.Module:
    """Return a copy of a model with versatile convolutions, of the same names and sizes.

    Each primary filter is the least-squares fit to the dense filters of its outputs. So the copy computes
    something else than the model, and needs training.

    Args:
        model: it is not changed.
        layers: names of the convolutions to replace. None means every nn.Conv2d that has one group, pads with
            zeros, has more than `delta` input channels, and would have fewer filters than before.
        delta: as in VersatileConv2d, like the next three.
        step: distance between channel windows.
        spatial: whether there are spatial crops.
        windows: "weight" or "input".

    Raises:
        ConfigError: a layer cannot be replaced, its number of outputs does not divide, or there is none.
    """
    form = _Form(delta, step, spatial, windows)
    modules = dict(model.named_modules())
    for name in layers or ():
        if name not in modules:
            raise ConfigError(f"to_versatile: the model has no layer {name}.{suggest(name, modules)}")
        if reason := form.problem(modules[name]):
            raise ConfigError(f"to_versatile: {name} {reason}. Leave it out of layers.")
    chosen = [name for name, each in modules.items() if not form.problem(each)] if layers is None else layers
    if not chosen:
        raise ConfigError(f"to_versatile: no layer of {type(model).__name__} can be replaced. See layers.")
    copied = copy.deepcopy(model)
    for name in chosen:
        convolution = copied.get_submodule(name)
        assert isinstance(convolution, nn.Conv2d)  # any other module has a problem
        try:
            layer = form.fitted(convolution)
        except ConfigError as error:
            raise ConfigError(f"to_versatile: {name}: {error}") from None
        copied = _replace(copied, convolution, layer)
    return copied


@dataclass(frozen=True)
class _Form:
    """The arguments of VersatileConv2d that a convolution does not have."""

    delta: int
    step: int
    spatial: bool
    windows: Windows

    def problem(self, module: nn.Module) -> str:
        """Return why a module cannot be replaced, or ""."""
        if type(module) is not nn.Conv2d:
            return f"is {a_kind(module)}, expected a Conv2d"
        if module.groups > 1 or module.padding_mode != "zeros":
            return "is grouped or does not pad with zeros"
        if module.in_channels <= self.delta:
            return f"has {module.in_channels} input channels, expected more than delta={self.delta}"
        if not self.delta and (not self.spatial or min(module.kernel_size) < 3):
            return "would have as many filters as before"
        return ""

    def fitted(self, dense: nn.Conv2d) -> VersatileConv2d:
        """Return the versatile layer whose secondary filters lie nearest to the filters of a convolution."""
        height, width = dense.kernel_size
        layer = VersatileConv2d(
            dense.in_channels,
            dense.out_channels,
            (height, width),
            self.delta,
            self.step,
            (dense.stride[0], dense.stride[1]),
            _padding(dense),
            (dense.dilation[0], dense.dilation[1]),
            dense.bias is not None,
            spatial=self.spatial,
            windows=self.windows,
            device=dense.weight.device,
            dtype=dense.weight.dtype,
        )
        with torch.no_grad():
            layer.weight.copy_(_nearest(layer, dense.weight.double()))
            if layer.bias is not None and dense.bias is not None:
                layer.bias.copy_(dense.bias)
                layer.bias.requires_grad_(dense.bias.requires_grad)
        layer.weight.requires_grad_(dense.weight.requires_grad)
        return layer.train(dense.training)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> nn.Module:
    """Put a module in all places of another. Return the model, which may be that module itself."""
    if model is old:
        return new
    for parent in model.modules():
        for name, child in parent.named_children():
            if child is old:
                setattr(parent, name, new)
    return model


def _nearest(layer: VersatileConv2d, filters: Tensor) -> Tensor:
    """Return the least-squares fit: each weight is the mean of the dense weights that it stands for."""
    crops, shifts = layer.parts
    height, width = layer.kernel_size
    targets = filters.reshape(crops, shifts, len(layer.weight), *filters.shape[1:])
    total, often = torch.zeros_like(layer.weight, dtype=torch.float64), torch.zeros_like(layer.weight)
    for crop in range(crops):
        inner = (..., slice(crop, height - crop), slice(crop, width - crop))
        for shift in range(shifts):
            window = slice(shift * layer.step, shift * layer.step + layer.in_channels - layer.delta)
            own = slice(None) if layer.windows == "input" else window
            total[:, own][inner] += targets[crop, shift][:, window][inner]
            often[:, own][inner] += 1
    return total / often.clamp(min=1)  # windows far apart leave out the channels between them


def _padding(dense: nn.Conv2d) -> tuple[int, int]:
    """Return the padding as numbers."""
    if not isinstance(dense.padding, str):
        return dense.padding[0], dense.padding[1]
    if dense.padding == "valid":
        return 0, 0
    down, across = (
        spread * (side - 1) for spread, side in zip(dense.dilation, dense.kernel_size, strict=True)
    )
    if down % 2 or across % 2:
        raise ConfigError(
            'padding="same" of an even kernel differs from side to side. Leave the layer out of layers.'
        )
    return down // 2, across // 2
