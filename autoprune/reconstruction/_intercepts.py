"""Put the constant of a refitted layer into the BatchNorm after it, or into its own bias.

Example:
    followers = normalised_by(prunable)        # {"conv1.weight": "bn1"}
    norm = norm_of(small, "conv1.weight", followers)
    fold_into_norm(norm, scale, shift, mean, variance)
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.graph import Prunable
from autoprune.graph.orientation import owner_of
from autoprune.graph.propagate import LAYER_OPERATORS, operator_name
from autoprune.reconstruction._sums import precise


def normalised_by(prunable: Prunable) -> dict[str, str]:
    """Return {weight: path of the BatchNorm that is the only reader of its layer's output}."""
    states = prunable.captured.states
    found = {}
    for node in prunable.captured.nodes:
        if node.op != "call_function" or operator_name(node) not in LAYER_OPERATORS:
            continue
        weight = node.args[1]
        users = list(node.users)
        if not isinstance(weight, Node) or weight.name not in states or len(users) != 1:
            continue
        path = _normaliser(prunable, users[0])
        if path is not None:
            found[states[weight.name]] = path
    return found


def _normaliser(prunable: Prunable, node: Node) -> str | None:
    """Return the path of the BatchNorm whose operator this is, or None if it is not one with statistics."""
    if node.op != "call_function" or operator_name(node) != "batch_norm":
        return None
    mean = next((arg for arg in node.args[3:4] if isinstance(arg, Node)), None)
    name = prunable.captured.states.get(mean.name) if mean is not None else None
    if name is None:
        return None
    path = owner_of(name)[0]
    module = prunable.model.get_submodule(path)
    return path if isinstance(module, _BatchNorm) and module.affine else None


def fold_into_norm(norm: _BatchNorm, scale: Tensor, shift: Tensor, mean: Tensor, variance: Tensor) -> None:
    """Set a BatchNorm so that in eval mode it computes scale x z + shift, with the statistics of z.

    Other statistics could give the same function. But then the next recalibration would replace them by those
    of z, which changes the function and undoes the repair.

    Args:
        norm: the BatchNorm, which is changed in place.
        scale: float64 [channels].
        shift: float64 [channels].
        mean: float64 [channels], mean of its inputs z.
        variance: float64 [channels], variance of its inputs z.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a BatchNorm without running statistics has no fixed function in eval mode")
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    # The statistics are read back from the module, so that rounding them does not change the function.
    stored = precise(norm.running_var) + norm.eps
    norm.weight.data.copy_(scale * stored.sqrt())
    norm.bias.data.copy_(shift + scale * precise(norm.running_mean))


def folded(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return the float64 scale and shift [channels] that a BatchNorm applies to its inputs in eval mode."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a BatchNorm without running statistics has no fixed function in eval mode")
    scale = precise(norm.weight.detach()) / torch.sqrt(precise(norm.running_var) + norm.eps)
    return scale, precise(norm.bias.detach()) - scale * precise(norm.running_mean)


def norm_of(model: nn.Module, weight: str, followers: Mapping[str, str]) -> _BatchNorm | None:
    """Return the BatchNorm that follows a layer, or None."""
    path = followers.get(weight)
    module = None if path is None else model.get_submodule(path)
    return module if isinstance(module, _BatchNorm) else None


def bias_of(model: nn.Module, weight: str) -> nn.Parameter | None:
    """Return the bias that belongs to a weight, or None."""
    path, leaf = owner_of(weight)
    if not leaf.endswith("weight"):
        return None
    # The input projection of attention has "in_proj_weight" and "in_proj_bias".
    bias = getattr(model.get_submodule(path), leaf.removesuffix("weight") + "bias", None)
    return bias if isinstance(bias, nn.Parameter) else None
