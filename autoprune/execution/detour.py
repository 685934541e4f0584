"""A detour for strided 1x1 convolutions of few inputs, for machines whose kernels compute them wrongly.

oneDNN 3.12 (in torch 2.14) writes beyond its buffers in the weight gradient of such a convolution, if images
are channels-last and AVX2 is the best instruction set: https://github.com/uxlfoundation/oneDNN/issues/6035.
A strided 1x1 convolution equals a convolution without stride over the pixels that the stride reaches. The
kernels of the latter are right.

    with Detour():
        outputs = model(inputs)        # its backward pass takes the detour too, even after the block
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.overrides import TorchFunctionMode

MOST_INPUTS = 8
"""Convolutions of at most this many input channels per group take the detour. Wider ones are right."""

_ARGUMENTS = inspect.signature(
    lambda input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1: None
)
"""The signature of torch.conv2d, which is a builtin without one."""


class Detour(TorchFunctionMode):
    """Runs strided 1x1 convolutions of few inputs on a CPU without their stride.

    It changes calls of torch functions, not modules, so models and saved files do not depend on it.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or replace a convolution that needs the detour."""
        keywords = dict(kwargs or {})
        if func is torch.conv2d:
            given = _ARGUMENTS.bind(*args, **keywords)
            given.apply_defaults()
            if _needs_detour(**given.arguments):
                return _without_stride(**given.arguments)
        return func(*args, **keywords)


def _needs_detour(input: Tensor, weight: Tensor, stride: Any, padding: Any, **others: Any) -> bool:
    return (
        input.device.type == "cpu"
        and tuple(weight.shape[2:]) == (1, 1)
        and weight.shape[1] <= MOST_INPUTS
        and max(_pair(stride)) > 1
        and padding != "same"  # torch refuses that with a stride
    )


def _without_stride(
    input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, padding: Any, dilation: Any, groups: int
) -> Tensor:
    (down, right), (rows, columns) = _pair(stride), _pair(0 if padding == "valid" else padding)
    if rows or columns:
        input = functional.pad(input, (columns, columns, rows, rows))
    return functional.conv2d(input[..., ::down, ::right], weight, bias, groups=groups)


def _pair(value: Any) -> tuple[int, int]:
    first, last = (value, value) if isinstance(value, int) else (value[0], value[-1])
    return int(first), int(last)
