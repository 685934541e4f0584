"""A convolution whose filters are parts of fewer, primary filters.

Example:
    layer = VersatileConv2d(16, 32, 3, padding=1)    # 16 primary filters, each used as 3x3 and as 1x1
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import EllipsisType
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from autoprune.errors import ConfigError, shown_value

Pair: TypeAlias = tuple[int, int]
Windows: TypeAlias = Literal["weight", "input"]

_PASS = 64
"""MACs that take about as long as one more pass over an output value in memory."""

_WEIGHT = 16
"""MACs that take about as long as a copy of a weight."""

_CALLS = 2**21
"""MACs that take about as long as the calls by which several convolutions exceed one."""


class VersatileConv2d(nn.Module):
    """Convolve with secondary filters, each a part of a primary filter.

    A spatial crop is the central part of a filter. The sides of the crops are k, k - 2 and so on, down to 1
    or 2. A channel window takes `in_channels - delta` input channels. Windows begin at 0, step, 2 * step, up
    to delta. With S crops and J windows a layer has out_channels / (S * J) primary filters. All crops have
    outputs of the same size, because the padding shrinks with the crop. The order of the outputs is crop,
    window, primary.

    A primary filter is kept or dropped with all its outputs. If `delta` is above 0, the input channels stay,
    because the windows count them.

    If exported or counted, the layer is a convolution for each crop and window. In eager mode a large layer
    convolves the channels that all windows share once, and each crop by itself. A small one is one
    convolution with zeros around the parts, since the calls would take longer than these multiplications.

    Args:
        in_channels: number of input channels.
        out_channels: number of output channels, a multiple of S * J.
        kernel_size: height and width of the primary filters, or one number for both.
        delta: number of input channels that a window leaves out. 0 means one window, of all channels.
        step: distance between windows, which divides `delta`.
        stride: of the outputs.
        padding: of the primary filters, with zeros.
        dilation: distance between the points of a filter.
        bias: whether each output has a bias of its own.
        spatial: whether there are spatial crops. If not, S is 1.
        windows: "weight" takes a window of the primary filter's channels together with its input channels.
            "input" moves a primary filter of `in_channels - delta` channels over the input channels.
        device: of the parameters.
        dtype: of the parameters.

    Attributes:
        weight: the primary filters [primaries, channels, height, width].
        bias: [out_channels], or None.
        mask: bool [crops, windows, 1, channels or 1, height, width], the places of each part in the filters.
        kernel_size: height and width of the primary filters.
        parts: number of spatial crops, and number of channel windows.

    Raises:
        ConfigError: the sizes do not fit each other.

    Reference: Wang et al., "Learning Versatile Filters for Efficient Convolutional Neural Networks", NeurIPS
    2018. The authors' code moves filters over the input as windows="input" does. It floors out_channels, and
    its padding ignores the dilation.
    """

    bias: nn.Parameter | None
    mask: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Pair,
        delta: int = 0,
        step: int = 1,
        stride: int | Pair = 1,
        padding: int | Pair = 0,
        dilation: int | Pair = 1,
        bias: bool = True,
        *,
        spatial: bool = True,
        windows: Windows = "weight",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        sides = _pair("kernel_size", kernel_size)
        if min(sides) < 1:
            raise ConfigError(f"VersatileConv2d: got kernel_size={kernel_size}, expected 1 or more.")
        parts = count_parts(sides, delta, step, spatial=spatial)
        _check(in_channels, out_channels, delta, step, parts, windows)
        self.delta, self.step, self.spatial, self.windows = delta, step, spatial, windows
        self.stride, self.padding = _pair("stride", stride), _pair("padding", padding)
        self.dilation = _pair("dilation", dilation)
        channels = in_channels - delta if windows == "input" else in_channels
        shape = (out_channels // math.prod(parts), channels, *sides)
        self.weight = nn.Parameter(torch.empty(shape, device=device, dtype=dtype))
        values = torch.empty(out_channels, device=device, dtype=dtype) if bias else None
        self.register_parameter("bias", None if values is None else nn.Parameter(values))
        counted = in_channels if delta and windows == "weight" else 1
        self.parts, self.kernel_size = parts, sides
        areas = [(sides[0] - 2 * crop) * (sides[1] - 2 * crop) for crop in range(parts[0])]
        self._area, self._saved_area = areas[0], areas[0] - sum(areas) / len(areas)
        self._planned = in_channels, out_channels  # Narrower versions make the same calls as the dense layer.
        self._area_stride = math.prod(self.stride)
        mask = torch.empty((*parts, 1, counted, *sides), device=device, dtype=torch.bool)
        self.register_buffer("mask", mask, persistent=False)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw new parameters as torch's convolutions do."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            bound = 1 / math.sqrt(self.weight[0].numel())
            nn.init.uniform_(self.bias, -bound, bound)
        self.mask.zero_()
        for crop, masks in enumerate(self.mask):
            for number, mask in enumerate(masks):
                first = number * self.step if mask.shape[1] > 1 else 0
                mask[:, first : first + self.in_channels - self.delta][self._inner(crop)] = 1

    @property
    def in_channels(self) -> int:
        """Number of input channels."""
        return self.weight.shape[1] + (self.delta if self.windows == "input" else 0)

    @property
    def out_channels(self) -> int:
        """Number of output channels."""
        return len(self.weight) * math.prod(self.parts)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [n, in_channels, h, w] to [n, out_channels, ...], of a size as for nn.Conv2d."""
        if torch.compiler.is_exporting() or inputs.is_meta:
            return self._by_formula(inputs)
        crops, _ = self.parts
        batch, _, high, wide = inputs.shape
        channels, outputs = self._planned
        values = batch * high * wide * outputs / self._area_stride
        saved = channels * self._saved_area  # MACs for each output value
        copied = outputs * channels * self._area  # with zeros, for a single convolution
        if crops > 1 and values * (saved - _PASS) + _WEIGHT * copied > _CALLS:
            return torch.cat([self._crops(inputs, crop, crop + 1, values) for crop in range(crops)], 1)
        return self._crops(inputs, 0, crops, values)

    def _crops(self, inputs: Tensor, first: int, last: int, values: float) -> Tensor:
        """Return the outputs of crops `first` to `last` - 1, by filters of the size of `first`."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        mask, (crops, windows) = self.mask, self.parts
        if last - first < crops:
            weight, mask = weight[self._inner(first)], mask[first:last][self._inner(first)]
            bias = None if bias is None else bias.view(crops, -1)[first:last].flatten()
        if last - first == windows == 1:
            return self._convolve(inputs, weight, bias, first)
        if windows > 1 and self.windows == "input":
            starts = range(0, self.delta + 1, self.step)
            pads = [(0, 0, 0, 0, start, self.delta - start) for start in starts]
            weight = torch.stack([functional.pad(weight, each) for each in pads])
        elif windows > 1:
            channels, outputs = self._planned
            saved = (channels - 2 * self.delta) * weight[0, 0].numel() * (1 - 1 / windows)
            passes = 1 + channels * self._area_stride / outputs  # over outputs, and over inputs
            if values * (saved - _PASS * passes) + _WEIGHT * outputs * saved > _CALLS:
                return self._around_shared(inputs, weight, mask, bias, first)
        return self._convolve(inputs, (weight * mask).flatten(0, 2), bias, first)

    def _around_shared(
        self, inputs: Tensor, weight: Tensor, mask: Tensor, bias: Tensor | None, crop: int
    ) -> Tensor:
        """Return the outputs from a convolution of the shared channels, and one of those at both ends."""
        low, high = self.delta, inputs.shape[1] - self.delta

        def ends(values: Tensor, axis: int) -> Tensor:
            return torch.cat([values.narrow(axis, 0, low), values.narrow(axis, high, low)], axis)

        alike = (weight[:, low:high] * mask[:, :1, :, low:high]).flatten(0, 2)
        shared = self._convolve(inputs[:, low:high], alike, None, crop)
        outer = self._convolve(ends(inputs, 1), (ends(weight, 1) * ends(mask, 3)).flatten(0, 2), bias, crop)
        crops, windows = mask.shape[:2]
        parts = outer.view(len(inputs), crops, windows, -1, *outer.shape[2:])
        return (parts + shared.view(len(inputs), crops, 1, -1, *outer.shape[2:])).flatten(1, 3)

    def _by_formula(self, inputs: Tensor) -> Tensor:
        """Return the outputs by a convolution for each crop and window, without zeros."""
        sources = list(self._sources(inputs))
        crops, _ = self.parts
        biases = (
            [None] * crops * len(sources) if self.bias is None else self.bias.view(crops * len(sources), -1)
        )
        outputs = [
            self._convolve(
                source, weight[self._inner(crop)], biases[crop * len(sources) + number], crop, groups
            )
            for crop in range(crops)
            for number, (source, weight, groups) in enumerate(sources)
        ]
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, 1)

    def _sources(self, inputs: Tensor) -> Iterator[tuple[Tensor, Tensor, int]]:
        """Iterate over (inputs, filters, groups) of the convolutions that each crop takes part in."""
        if not self.delta:
            yield inputs, self.weight, 1
            return
        width = self.in_channels - self.delta
        # An index, unlike a slice, marks the axis as one that must stay when the layer is traced.
        indices = [
            torch.arange(start, start + width, device=inputs.device)
            for start in range(0, self.delta + 1, self.step)
        ]
        sources = [inputs.index_select(1, index) for index in indices]
        moved = self.windows == "input"
        weights = [self.weight if moved else self.weight.index_select(1, index) for index in indices]
        if len(indices) < width:
            yield torch.cat(sources, 1), torch.cat(weights), len(indices)
        else:
            # A convolution of that many groups would be narrowed by whole groups, that is by windows.
            yield from ((source, weight, 1) for source, weight in zip(sources, weights, strict=True))

    def _inner(self, crop: int) -> tuple[EllipsisType | slice, ...]:
        """Return the index of a crop in filters or masks [..., height, width]."""
        height, width = self.kernel_size
        return ..., slice(crop, height - crop), slice(crop, width - crop)

    def _convolve(
        self, inputs: Tensor, weight: Tensor, bias: Tensor | None, crop: int, groups: int = 1
    ) -> Tensor:
        """Convolve with filters of the size of a crop."""
        (down, across), (high, wide) = (
            (pad - crop * spread for pad, spread in zip(self.padding, self.dilation, strict=True)),
            inputs.shape[2:],
        )
        # If the padding is smaller than the crop, the filter's first position lies inside the input.
        inside = inputs
        if min(down, across) < 0:
            top, left = max(0, -down), max(0, -across)
            inside = inputs[:, :, top : high - top, left : wide - left]
        return functional.conv2d(
            inside,
            weight,
            bias,
            self.stride,
            (max(0, down), max(0, across)),
            self.dilation,
            groups,
        )

    def extra_repr(self) -> str:
        """Return the sizes in the form of nn.Conv2d, and the number of primary filters."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", primaries={len(self.weight)}, stride={self.stride}, padding={self.padding}"
        text += f", dilation={self.dilation}, bias={self.bias is not None}"
        if self.delta:
            text += f", delta={self.delta}, step={self.step}, windows={self.windows!r}"
        return text if self.spatial else f"{text}, spatial=False"


def count_parts(kernel_size: Pair, delta: int, step: int, *, spatial: bool) -> Pair:
    """Return the number of spatial crops and the number of channel windows of a primary filter."""
    return (min(kernel_size) + 1) // 2 if spatial else 1, delta // max(1, step) + 1


def _pair(name: str, value: object) -> Pair:
    match value:
        case int():
            return value, value
        case [int() as first, int() as second]:
            return first, second
    raise ConfigError(f"VersatileConv2d: got {name}={shown_value(value)}, expected an int or a pair of ints.")


def _check(in_channels: int, out_channels: int, delta: int, step: int, parts: Pair, windows: Windows) -> None:
    crops, shifts = parts
    if windows not in ("weight", "input"):
        raise ConfigError(f'VersatileConv2d: got windows={windows!r}, expected "weight" or "input".')
    if not 0 <= delta < in_channels or step < 1 or delta % step:
        raise ConfigError(
            f"VersatileConv2d: got delta={delta} and step={step} for {in_channels} input channels, expected "
            "a delta below the number of channels and a step that divides delta."
        )
    each = crops * shifts
    if out_channels < 1 or out_channels % each:
        below = max(each, out_channels // each * each)
        raise ConfigError(
            f"VersatileConv2d: got {out_channels} output channels, expected a multiple of {each} ({crops} "
            f"spatial crops x {shifts} channel windows of each primary). Try {below} or {below + each}."
        )
