"""The other path of strided 1x1 convolutions: the same results, and taken by those alone that need it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.execution.detour import MOST_INPUTS, Detour

CONCERNED: list[dict[str, Any]] = [
    {"in_channels": 1, "stride": 2},
    {"in_channels": MOST_INPUTS, "stride": 2, "bias": False},
    {"in_channels": 4, "stride": (1, 3)},
    {"in_channels": 4, "stride": (2, 1), "padding": 1},
    {"in_channels": 4, "stride": 2, "padding": (0, 2)},
    {"in_channels": 4, "stride": 2, "padding": "valid"},
    {"in_channels": 16, "stride": 2, "groups": 4, "dilation": 2},
]
OTHERS: list[dict[str, Any]] = [
    {"in_channels": 4, "stride": 1},
    {"in_channels": MOST_INPUTS + 1, "stride": 2},
    {"in_channels": 4, "stride": 2, "kernel_size": 3},
    {"in_channels": 4, "stride": 2, "kernel_size": (1, 2)},
]


def passed(convolution: nn.Module, inputs: Tensor) -> list[Tensor]:
    """Return the outputs and all gradients."""
    given = inputs.clone().requires_grad_()
    outputs: Tensor = convolution(given)
    weights = list(convolution.parameters())
    return [outputs, *torch.autograd.grad(outputs.square().sum(), [given, *weights])]


@pytest.mark.parametrize("arguments", CONCERNED, ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_gives_the_same_outputs_and_gradients(
    arguments: dict[str, Any], memory_format: torch.memory_format
) -> None:
    convolution = nn.Conv2d(**{"out_channels": 8, "kernel_size": 1, **arguments}).double()
    inputs = torch.randn(3, convolution.in_channels, 7, 8, dtype=torch.float64)
    inputs = inputs.contiguous(memory_format=memory_format)
    expected = passed(convolution, inputs)
    with Detour():
        found = passed(convolution, inputs)
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-12, atol=1e-12)
        assert ours.shape == theirs.shape


class Strides(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Notes the strides of the convolutions that really run."""

    def __init__(self, seen: list[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.seen = seen

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            self.seen.append(tuple(args[3]))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("arguments", "strided"),
    [*((each, False) for each in CONCERNED), *((each, True) for each in OTHERS)],
    ids=str,
)
def test_only_those_that_need_it_lose_their_stride(arguments: dict[str, Any], strided: bool) -> None:
    convolution = nn.Conv2d(**{"out_channels": 8, "kernel_size": 1, **arguments})
    seen: list[Any] = []
    with Detour(), Strides(seen):
        convolution(torch.randn(3, convolution.in_channels, 7, 8))
    assert seen == [convolution.stride if strided else (1, 1)]


def test_images_without_a_batch_and_functions_of_torch_take_it_too() -> None:
    images, weight = torch.randn(4, 7, 8), torch.randn(8, 4, 1, 1)
    expected = torch.conv2d(images, weight, stride=2)
    seen: list[Any] = []
    with Detour(), Strides(seen):
        found = torch.conv2d(input=images, weight=weight, stride=(2, 2))
    assert seen == [(1, 1)]
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_stride_that_torch_refuses_is_still_refused() -> None:
    with Detour(), pytest.raises(RuntimeError, match="padding='same' is not supported for strided"):
        functional.conv2d(torch.randn(1, 4, 8, 8), torch.randn(8, 4, 1, 1), stride=2, padding="same")
