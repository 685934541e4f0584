"""Read a call of a convolution or a linear layer as a matrix product of input patches and a weight matrix.

Example:
    call = as_contraction(functional.conv2d, (images, weight, bias), {"padding": 1})
    rows = call.rows(places)                    # [n, groups, inputs of a group x kernel]
    rows @ call.matrix(weight).mT               # the layer's outputs at these positions
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

_CONVOLUTIONS: dict[Callable[..., Any], int] = {
    functional.conv1d: 1,
    functional.conv2d: 2,
    functional.conv3d: 3,
}
"""Functions that convolve, with the number of spatial axes."""

_TRANSPOSED: dict[Callable[..., Any], int] = {
    functional.conv_transpose1d: 1,
    functional.conv_transpose2d: 2,
    functional.conv_transpose3d: 3,
}

_CONV_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_TRANSPOSED_NAMES = ("input", "weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
_LINEAR_NAMES = ("input", "weight", "bias")


@dataclass(frozen=True, eq=False)
class Contraction:
    """A call that multiplies patches of its input with a weight.

    Attributes:
        input: [n, channels, *spatial] of a convolution, [n, ..., features] of a linear layer.
        weight: weight that was passed to the call.
        bias: bias that was passed to the call, or None.
        groups: groups of the convolution, or 1 for a linear layer.
        stride: stride of each spatial axis, or empty for a linear layer.
        padding: number of zeros before each spatial axis.
        dilation: dilation of each spatial axis.
        transposed: whether it is a transposed convolution, whose weight has its inputs on axis 0.
    """

    input: Tensor
    weight: Tensor
    bias: Tensor | None
    groups: int = 1
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    transposed: bool = False

    @property
    def kernel(self) -> tuple[int, ...]:
        """Size of the kernel along each spatial axis, or empty for a linear layer."""
        return tuple(self.weight.shape[2:])

    def places(self, output: Tensor, count: int, generator: torch.Generator) -> Tensor | None:
        """Draw `count` output positions of each image, int64 [n, count], or None if there are no more."""
        positions = _positions_of(output, bool(self.kernel))
        if positions <= count:
            return None
        return torch.randint(0, positions, (len(output), count), generator=generator).to(output.device)

    def taken(self, output: Tensor, places: Tensor | None) -> Tensor:
        """Return the values [rows, channels] at these positions of a tensor that has the output's shape."""
        if self.kernel:
            flat = output.flatten(2)
            if places is not None:
                flat = flat.gather(2, places[:, None].expand(-1, flat.shape[1], -1))
            return flat.transpose(1, 2).reshape(-1, flat.shape[1])
        flat = output.reshape(len(output), -1, output.shape[-1])
        if places is not None:
            flat = flat.gather(1, places[..., None].expand(-1, -1, flat.shape[2]))
        return flat.reshape(-1, flat.shape[2])

    def rows(self, shape: Sequence[int], places: Tensor | None) -> Tensor:
        """Return the input patches [rows, groups, patch] that give the output at these positions.

        A patch holds the inputs of one group, channel by channel, each at all offsets of the kernel. Values
        outside the input are zero.

        Args:
            shape: shape of the output.
            places: positions that `places` returned.
        """
        if not self.kernel:
            return self.taken(self.input, places)[:, None]
        spatial = tuple(shape[2:])
        if places is None:
            places = torch.arange(math.prod(spatial), device=self.input.device).expand(shape[0], -1)
        coordinates = torch.unravel_index(places, spatial)
        offsets = torch.cartesian_prod(*(torch.arange(size) for size in self.kernel)).reshape(
            -1, len(self.kernel)
        )
        columns = [self._gathered(coordinates, offset) for offset in offsets.tolist()]
        patches = torch.stack(columns, dim=-1)  # [n, channels, places, kernel]
        n, channels, count, size = patches.shape
        grouped = patches.reshape(n, self.groups, channels // self.groups, count, size)
        return grouped.permute(0, 3, 1, 2, 4).reshape(n * count, self.groups, -1)

    def _gathered(self, coordinates: Sequence[Tensor], offset: Sequence[int]) -> Tensor:
        """Return the inputs [n, channels, places] at one offset of the kernel."""
        spatial = self.input.shape[2:]
        flat = torch.zeros_like(coordinates[0])
        inside = torch.ones_like(flat, dtype=torch.bool)
        for axis, where in enumerate(coordinates):
            stride, padding = self.stride[axis], self.padding[axis]
            step = self.dilation[axis] * offset[axis]
            if self.transposed:
                # Output o gets input i through offset k if o = i x stride - padding + k x dilation.
                distance = where + padding - step
                position = torch.div(distance, stride, rounding_mode="floor")
                inside &= distance % stride == 0
            else:
                position = where * stride - padding + step
            inside &= (position >= 0) & (position < spatial[axis])
            # A position outside is clamped so that the gather is valid. Its value is replaced by 0 below.
            flat = flat * spatial[axis] + position.clamp(0, spatial[axis] - 1)
        index = flat[:, None].expand(-1, self.input.shape[1], -1)
        return self.input.flatten(2).gather(2, index) * inside[:, None]

    def matrix(self, weight: Tensor) -> Tensor:
        """Return a weight of this layer, in any type, as matrices [groups, outputs, patch]."""
        return to_matrices(weight, self.groups, transposed=self.transposed)


def to_matrices(weight: Tensor, groups: int, *, transposed: bool = False) -> Tensor:
    """Return a weight as one matrix for each group, [groups, outputs of a group, patch], to match `rows`."""
    if not transposed:
        return weight.reshape(groups, -1, math.prod(weight.shape[1:]))
    inputs, outputs, *kernel = weight.shape
    split = weight.reshape(groups, inputs // groups, outputs, math.prod(kernel))
    return split.transpose(1, 2).reshape(groups, outputs, -1)


def from_matrices(matrices: Tensor, like: Tensor, *, transposed: bool = False) -> Tensor:
    """Turn matrices [groups, outputs, patch] back into a weight of the shape and type of `like`."""
    if not transposed:
        return matrices.reshape(like.shape).to(like.dtype)
    groups = len(matrices)
    inputs, outputs, *kernel = like.shape
    split = matrices.reshape(groups, outputs, inputs // groups, math.prod(kernel))
    return split.transpose(1, 2).reshape(like.shape).to(like.dtype)


def as_contraction(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> Contraction | None:
    """Read a call of a torch function as a contraction, or return None for other or unbatched calls."""
    if function is functional.linear:
        given = {**dict(zip(_LINEAR_NAMES, args, strict=False)), **kwargs}
        if given["input"].ndim < 2:
            return None
        return Contraction(given["input"], given["weight"], given.get("bias"))
    axes = _CONVOLUTIONS.get(function) or _TRANSPOSED.get(function)
    if axes is None:
        return None
    transposed = function in _TRANSPOSED
    names = _TRANSPOSED_NAMES if transposed else _CONV_NAMES
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    if given["input"].ndim != axes + 2:
        return None
    dilation = _per_axis(given.get("dilation", 1), axes)
    kernel = given["weight"].shape[2:]
    padding = given.get("padding", 0)
    if padding == "same":
        # If the padding is odd, torch pads one element more at the end than at the beginning.
        padding = tuple(d * (k - 1) // 2 for d, k in zip(dilation, kernel, strict=True))
    elif padding == "valid":
        padding = 0
    return Contraction(
        given["input"],
        given["weight"],
        given.get("bias"),
        groups=given.get("groups", 1),
        stride=_per_axis(given.get("stride", 1), axes),
        padding=_per_axis(padding, axes),
        dilation=dilation,
        transposed=transposed,
    )


def _per_axis(value: int | Sequence[int], axes: int) -> tuple[int, ...]:
    values = (value,) if isinstance(value, int) else tuple(value)
    return values * axes if len(values) == 1 else values


def _positions_of(output: Tensor, convolved: bool) -> int:
    return math.prod(output.shape[2:] if convolved else output.shape[1:-1])
