"""Count the weights and the multiply-adds that masks leave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from autoprune.graph import Cost, Prunable
from autoprune.graph.capture import ExampleInputs, call, unchanged
from autoprune.masks._masks import Masks
from autoprune.support.modes import modes_kept, set_training


@dataclass(frozen=True)
class Remaining:
    """The size of a masked model.

    Attributes:
        weights: elements of all parameters that are not masked.
        dense_weights: elements of all parameters.
        macs: multiply-adds at batch 1 without those of the masked weights of convolutions and linear layers.
            They are theoretical: zeros alone do not run faster.
        dense_macs: multiply-adds of the dense model.
    """

    weights: int
    dense_weights: int
    macs: int
    dense_macs: int

    @property
    def sparsity(self) -> float:
        """Share of zeros among all parameters."""
        return 1 - self.weights / self.dense_weights

    def __str__(self) -> str:
        """Return both counts with their shares in one line."""
        return (
            f"{self.weights:,} of {self.dense_weights:,} weights ({self.weights / self.dense_weights:.1%}), "
            f"{self.macs:,} of {self.dense_macs:,} MACs ({self.macs / self.dense_macs:.1%}, in theory: zeros "
            "alone do not run faster)"
        )


def remaining(prunable: Prunable, masks: Masks) -> Remaining:
    """Count the weights and the theoretical MACs that masks leave.

    Raises:
        MaskError: the masks are of another model.
    """
    return remaining_of(prunable.model, prunable.example_inputs, prunable.cost(), masks, prunable.target)


def remaining_of(
    model: nn.Module, inputs: ExampleInputs, cost: Cost, masks: Masks, target: str = ""
) -> Remaining:
    """Count the weights and the theoretical MACs that masks leave of a model with a known cost.

    With a target, inputs and cost are those of that submodule.

    Raises:
        MaskError: the masks are of another model.
    """
    placed = zip(masks, masks.placed(model), strict=True)
    zeros = {name: int(zero.sum()) for name, (_, zero) in placed}
    uses = _uses(model, inputs, target)
    spared = sum(count * uses.get(name, 0) for name, count in zeros.items())
    params, macs = int(cost.params), int(cost.macs)
    return Remaining(params - sum(zeros.values()), params, macs - spared, macs)


def _uses(model: nn.Module, inputs: ExampleInputs, target: str) -> dict[str, int]:
    """Return {weight: number of multiply-adds at batch 1 of each of its elements}."""
    found: dict[str, int] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...], Tensor], None]:
        def add(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            if isinstance(module, nn.Linear):
                uses = output.numel() // output.shape[-1]
            else:  # each element of a transposed convolution meets each position of the input
                maps = inputs[0] if isinstance(module, _ConvTransposeNd) else output
                uses = maps.numel() // maps.shape[1]
            found[name] = found.get(name, 0) + uses

        return add

    handles = []
    for path, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None and isinstance(module, (nn.Linear, _ConvNd)):
            handles.append(module.register_forward_hook(watch(f"{path}.weight" if path else "weight")))
    try:
        with torch.no_grad(), modes_kept(model), unchanged(model):
            set_training(model, False)
            call(model, inputs, target)
    finally:
        for handle in handles:
            handle.remove()
    return found
