"""Make small nets of a model's heaviest layers, whose latency is measured at many widths.

Example:
    block = heavy_blocks(model, torch.zeros(1, 3, 224, 224))[0]
    block.name, block.width                # "layer1.0.conv2", 64
    small, inputs = block.make(40)         # conv to 40 channels, ReLU, conv from 40 channels
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.errors import LatencyError
from autoprune.graph.capture import call
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import placed_copy, random_inputs

_Signature = tuple[object, ...]


@dataclass(frozen=True)
class Block:
    """A small net that can be made at any width.

    Attributes:
        name: name of its layer in the dense model.
        width: output channels of that layer, which is the largest width to measure.
        make: width -> (model, example inputs).
    """

    name: str
    width: int
    make: Callable[[int], tuple[nn.Module, object]]


def heavy_blocks(model: nn.Module, example_inputs: object, most: int = 3) -> list[Block]:
    """Return blocks for the convolutions and linear layers with the most MACs.

    Layers with equal shapes share one block. A block is the layer, a ReLU, and a second layer back to the
    number of input channels. So its width is like that of a channel group: the output of one layer and the
    input of the next. Grouped convolutions are left out.

    Args:
        model: the dense model. A copy runs once, in eval mode on the CPU.
        example_inputs: a Tensor, a tuple of inputs or a dict of keyword inputs.
        most: largest number of blocks.

    Raises:
        LatencyError: the model has no such layer.
    """
    copied, inputs = placed_copy(model, LatencySetting()), random_inputs(example_inputs, LatencySetting())
    found: dict[_Signature, tuple[int, str, nn.Module, Tensor]] = {}

    def note(
        name: str, layer: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor], output: Tensor
    ) -> None:
        given = args[0] if args else kwargs["input"]
        # Each output value takes one multiply-add for each weight of its channel's filter.
        macs = layer.get_parameter("weight").numel() * output.numel() // _channels(layer)[1]
        shapes = (layer.get_parameter("weight").shape, given.shape, output.shape)
        key = (type(layer), *shapes, getattr(layer, "dilation", None))
        before = found.get(key, (0, name, layer, given))
        found[key] = (before[0] + macs, *before[1:])

    for name, module in copied.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and getattr(module, "groups", 1) == 1:
            module.register_forward_hook(partial(note, name), with_kwargs=True)
    with torch.no_grad():
        call(copied, inputs)
    if not found:
        raise LatencyError(
            f"{type(model).__name__}: has no convolution or linear layer from which a divisor could be "
            "measured. Set search.divisor to a number."
        )
    heaviest = sorted(found.values(), key=lambda entry: -entry[0])[:most]
    return [
        Block(name, _channels(layer)[1], partial(_make, layer, tuple(given.shape)))
        for _, name, layer, given in heaviest
    ]


def _channels(layer: nn.Module) -> tuple[int, int]:
    outputs, inputs = layer.get_parameter("weight").shape[:2]
    return inputs, outputs


def _make(layer: nn.Module, shape: tuple[int, ...], width: int) -> tuple[nn.Module, object]:
    entering, _ = _channels(layer)
    inputs = torch.zeros(shape)
    if not isinstance(layer, nn.Conv2d):
        return nn.Sequential(nn.Linear(entering, width), nn.ReLU(), nn.Linear(width, entering)), inputs
    rows, columns = layer.kernel_size[0], layer.kernel_size[-1]
    high, wide = layer.dilation[0], layer.dilation[-1]
    there = nn.Conv2d(
        entering,
        width,
        (rows, columns),
        stride=(layer.stride[0], layer.stride[-1]),
        padding=layer.padding if isinstance(layer.padding, str) else (layer.padding[0], layer.padding[-1]),
        dilation=(high, wide),
    )
    # The second convolution pads so that rows and columns stay: an image that has become small still fits.
    around = (high * (rows // 2), wide * (columns // 2))
    back = nn.Conv2d(width, entering, (rows, columns), padding=around, dilation=(high, wide))
    return nn.Sequential(there, nn.ReLU(), back), inputs
