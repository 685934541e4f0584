"""BatchNorm over a batch that several processes share, so that its statistics are those of the whole batch.

torch.nn.SyncBatchNorm does the same, but needs CUDA and replaces modules. Here calls of
`torch.nn.functional.batch_norm` are replaced instead, so models and saved files do not depend on it.

    with GlobalStatistics(group.gathered):
        outputs = model(inputs)          # its backward pass needs no block
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable
from torch.overrides import TorchFunctionMode

Gather = Callable[[Tensor], Tensor]
"""Returns the tensors [k] of all processes as [processes, k], in the order of the processes."""


class GlobalStatistics(TorchFunctionMode):
    """Normalises in train mode by the mean and variance over the shares of all processes.

    Args:
        gather: returns the tensors of all processes. Each process must call it equally often.
    """

    def __init__(self, gather: Gather) -> None:
        super().__init__()
        self._gather = gather

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call a function of torch, or replace a BatchNorm in train mode."""
        keywords = dict(kwargs or {})
        if func is functional.batch_norm and _trains(*args, **keywords):
            return _batch_norm(self._gather, *args, **keywords)
        return func(*args, **keywords)


def _trains(
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> bool:
    return training


def _batch_norm(
    gather: Gather,
    inputs: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Normalise as PyTorch does, with statistics over the shares of all processes."""
    values = inputs.detach().float() if inputs.dtype.itemsize < 4 else inputs.detach()
    axes = _axes(values)
    own = values.new_full((1,), values.numel() // values.shape[1])
    variance, mean = torch.var_mean(values, axes, correction=0)
    rows = gather(torch.cat([mean, variance, own]))
    counts = rows[:, -1:]
    means, variances = rows[:, :-1].chunk(2, dim=1)
    total = counts.sum()
    mean = (counts * means).sum(0) / total
    # Chan et al., "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979.
    variance = (counts * (variances + (means - mean).square())).sum(0) / total
    if running_mean is not None and running_var is not None:
        # torch normalises by the biased variance, but stores the unbiased one.
        running_mean.lerp_(mean.to(running_mean.dtype), momentum)
        running_var.lerp_((variance * total / (total - 1)).to(running_var.dtype), momentum)
    normal: Tensor = _Normalise.apply(inputs, mean, torch.rsqrt(variance + eps), total, gather)
    if weight is not None:
        normal = normal * _along(weight, inputs)
    if bias is not None:
        normal = normal + _along(bias, inputs)
    return normal.to(inputs.dtype)


class _Normalise(torch.autograd.Function):
    """(inputs - mean) * scale, where mean and scale depend on the inputs of all processes.

    Reference:
        Ioffe and Szegedy, "Batch Normalization", 2015, section 3 (the gradient).
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, inputs: Tensor, mean: Tensor, scale: Tensor, total: Tensor, gather: Gather
    ) -> Tensor:
        normal = (inputs - _along(mean, inputs)) * _along(scale, inputs)
        ctx.save_for_backward(normal, scale, total)
        ctx.gather, ctx.dtype = gather, inputs.dtype  # type: ignore[attr-defined]  # torch's own way to keep values
        return normal

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        normal, scale, total = ctx.saved_tensors
        gradient = gradient.to(normal.dtype)
        axes = _axes(normal)
        own = torch.cat([gradient.sum(axes), (gradient * normal).sum(axes)])
        sum_all, product_all = (ctx.gather(own).sum(0) / total).chunk(2)
        rest = gradient - _along(sum_all, normal) - normal * _along(product_all, normal)
        return (_along(scale, normal) * rest).to(ctx.dtype), None, None, None, None


def _axes(values: Tensor) -> list[int]:
    return [0, *range(2, values.ndim)]


def _along(channels: Tensor, values: Tensor) -> Tensor:
    """Return a tensor [C] in a shape that broadcasts over axis 1."""
    return channels.view(1, -1, *[1] * (values.ndim - 2))
