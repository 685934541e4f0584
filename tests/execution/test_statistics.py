"""BatchNorm over shares of a batch is BatchNorm over the batch: outputs, statistics and gradients."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor, nn

from autoprune.execution._statistics import GlobalStatistics

SIZES = [5, 3]
"""The shares of a batch differ in size, as those of an odd batch do."""


def exchange() -> Callable[[int], Callable[[Tensor], Tensor]]:
    """Return a function that gives each of two threads its function to gather the tensors of both."""
    meeting = threading.Barrier(2, timeout=20)
    rows: list[Tensor] = [torch.empty(0)] * 2

    def of_thread(rank: int) -> Callable[[Tensor], Tensor]:
        def gather(own: Tensor) -> Tensor:
            rows[rank] = own
            meeting.wait()
            found = torch.stack(rows)
            meeting.wait()
            return found

        return gather

    return of_thread


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize(
    ("norm", "shape"),
    [(nn.BatchNorm2d(4), (4, 3, 5)), (nn.BatchNorm1d(4, affine=False), (4,)), (nn.BatchNorm2d(4), (4, 1, 1))],
)
def test_two_shares_give_what_the_whole_batch_gives(
    norm: nn.modules.batchnorm._BatchNorm, shape: tuple[int, ...], momentum: float | None
) -> None:
    generator = torch.Generator().manual_seed(0)
    images = 3 + 2 * torch.randn(sum(SIZES), *shape, generator=generator, dtype=torch.float64)
    weights = torch.randn(images.shape, generator=generator, dtype=torch.float64)
    norm.momentum = momentum
    whole = copy.deepcopy(norm).double()
    inputs = images.clone().requires_grad_()
    outputs = whole(inputs)
    (outputs.sin() * weights).sum().backward()

    gather_of = exchange()

    def train(rank: int) -> tuple[nn.modules.batchnorm._BatchNorm, Tensor, Tensor]:
        model = copy.deepcopy(norm).double()
        own = torch.split(images, SIZES)[rank].clone().requires_grad_()
        with GlobalStatistics(gather_of(rank)):
            found = model(own)
        (found.sin() * torch.split(weights, SIZES)[rank]).sum().backward()
        assert own.grad is not None
        return model, found.detach(), own.grad

    with ThreadPoolExecutor(2) as pool:
        (first, *left), (second, *right) = pool.map(train, (0, 1))
    assert inputs.grad is not None
    torch.testing.assert_close(torch.cat([left[0], right[0]]), outputs.detach())
    torch.testing.assert_close(torch.cat([left[1], right[1]]), inputs.grad)
    for name, buffer in whole.named_buffers():
        torch.testing.assert_close(first.get_buffer(name), buffer)
        assert torch.equal(first.get_buffer(name), second.get_buffer(name))
    for name, parameter in whole.named_parameters():
        both = [model.get_parameter(name).grad for model in (first, second)]
        torch.testing.assert_close(sum(grad for grad in both if grad is not None), parameter.grad)


def refuse(own: Tensor) -> Tensor:
    raise AssertionError("no message is needed")


def test_a_norm_in_eval_mode_and_other_norms_send_nothing() -> None:
    images = torch.randn(4, 6, 2, 2)
    model = nn.Sequential(nn.BatchNorm2d(6).eval(), nn.GroupNorm(2, 6), nn.LayerNorm(2))
    expected = model(images)
    with GlobalStatistics(refuse):
        assert torch.equal(model(images), expected)


def one(own: Tensor) -> Tensor:
    return own[None]


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_low_precision_keeps_its_format_and_rounds_as_torch_does(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    images = (3 + torch.randn(8, 4, 5, 5)).to(device, torch.bfloat16)
    norm = nn.BatchNorm2d(4).to(device)
    expected = copy.deepcopy(norm)(images)
    with GlobalStatistics(one):
        found = norm(images)
    assert found.dtype is torch.bfloat16
    torch.testing.assert_close(found, expected, rtol=0.01, atol=0.02)
