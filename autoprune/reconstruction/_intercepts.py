"""Where the constant of a refitted layer goes: into the BatchNorm that follows it, or into its own bias.

followers = normalised_by(prunable)        # {"conv1.weight": "bn1"}
shift_into(small, "conv1.weight", followers, old_mean, new_mean, new_variance)
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
    """Return {weight: path of the BatchNorm that alone reads its layer's output}."""
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
    """Return the path of the BatchNorm module that an operator belongs to, if it is one with statistics."""
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
    """Set a BatchNorm so that in eval mode it gives scale x z + shift, with the statistics of z.

    With other statistics the function would be the same today, but the next recalibration would take them
    for wrong ones and undo the repair.

    Args:
        norm: changed in place.
        scale: float64 [channels].
        shift: float64 [channels].
        mean: float64 [channels], of the values z that enter.
        variance: float64 [channels], of the same.
    """
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a BatchNorm without running statistics has no function of its own")
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(variance)
    # As the module will read them: rounding variances must not change the function.
    stored = precise(norm.running_var) + norm.eps
    norm.weight.data.copy_(scale * stored.sqrt())
    norm.bias.data.copy_(shift + scale * precise(norm.running_mean))


def folded(norm: _BatchNorm) -> tuple[Tensor, Tensor]:
    """Return what a BatchNorm does in eval mode, as float64 (scale, shift) of the values that enter."""
    if norm.running_mean is None or norm.running_var is None:
        raise TypeError("a BatchNorm without running statistics has no function of its own")
    scale = precise(norm.weight.detach()) / torch.sqrt(precise(norm.running_var) + norm.eps)
    return scale, precise(norm.bias.detach()) - scale * precise(norm.running_mean)


def norm_of(model: nn.Module, weight: str, followers: Mapping[str, str]) -> _BatchNorm | None:
    """Return the BatchNorm behind a layer, or None."""
    path = followers.get(weight)
    module = None if path is None else model.get_submodule(path)
    return module if isinstance(module, _BatchNorm) else None


def bias_of(model: nn.Module, weight: str) -> nn.Parameter | None:
    """Return the bias beside a weight, or None."""
    path, leaf = owner_of(weight)
    if not leaf.endswith("weight"):
        return None
    # Attention's projection of its inputs is "in_proj_weight", with "in_proj_bias" beside it.
    bias = getattr(model.get_submodule(path), leaf.removesuffix("weight") + "bias", None)
    return bias if isinstance(bias, nn.Parameter) else None
