"""Own the rebuilder: a dense model and a plan give a new, smaller nn.Module of the same class.

After criteria made the plan; scores, finetuning and export take what comes out. The structure is cloned
and every tensor sliced on the way, so that nothing is copied that would be thrown away.

    small = rebuild(prunable, plan)
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.graph import Plan, Prunable
from autoprune.graph.example import note_example
from autoprune.graph.patches import patches_for

_PLAIN = (int, float, str, bool, bytes, complex, type(None), torch.dtype, torch.device, type)
_CONTAINERS = (dict, OrderedDict, set, list, tuple)
_TABLES = ("_parameters", "_buffers", "_modules")

KeepPositions = Mapping[str, Mapping[int, NDArray[np.int64]]]
"""{parameter or buffer: {axis: sorted int64 positions kept}}, whole axes left out."""


def rebuild(prunable: Prunable, plan: Plan) -> nn.Module:
    """Build the smaller model that `plan` describes; the dense one is left as it is.

    Returns:
        A new module of the same class, in the same mode, whose parameters are slices (copies) of the dense
        ones, on the same devices, with the same requires_grad.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    small = narrow(prunable.model, keep_positions(prunable, plan))
    note_example(small, prunable.example_inputs)
    return small


def keep_positions(prunable: Prunable, plan: Plan) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Return which positions of which axes the plan keeps.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    prunable.check(plan)
    gone: dict[tuple[str, int], list[NDArray[np.int64]]] = {}
    for name, index in plan.items():
        group = prunable.group(name)
        if len(index) < group.width:
            dropped = np.delete(np.arange(group.width), index)
            for member in group.members:
                gone.setdefault((member.parameter, member.axis), []).append(member.index[dropped].ravel())
    positions: dict[str, dict[int, NDArray[np.int64]]] = {}
    for (parameter, axis), parts in gone.items():
        kept = np.ones(prunable.shapes[parameter][axis], bool)
        kept[np.concatenate(parts)] = False
        positions.setdefault(parameter, {})[axis] = np.flatnonzero(kept)
    return positions


def narrow(model: nn.Module, positions: KeepPositions) -> nn.Module:
    """Clone `model` with its tensors cut to `positions` and its modules' numbers to match."""
    memo: dict[int, object] = {}
    first: dict[int, str] = {}
    narrowed: list[tuple[str, nn.Module]] = []
    with torch.no_grad():
        for path, module in model.named_modules():
            cut = False
            for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
                if tensor is None:
                    continue
                name = first.setdefault(id(tensor), f"{path}.{leaf}" if path else leaf)
                if id(tensor) not in memo:
                    memo[id(tensor)] = _slice(tensor, positions.get(name, {}))
                cut |= name in positions
            if cut:
                narrowed.append((path, module))
    small = clone_structure(model, memo)
    for path, dense in narrowed:
        module = small.get_submodule(path)
        local = (*module._parameters.items(), *module._buffers.items())
        shapes = {leaf: tuple(tensor.shape) for leaf, tensor in local if tensor is not None}
        for attribute, value in patches_for(dense, shapes).items():
            setattr(module, attribute, value)
    return small


def clone_structure(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    """Clone a module and all below it; its tensors come from `memo`, the rest is copied, or shared if plain.

    Args:
        module: what to clone.
        memo: {id of each parameter and buffer: the tensor that takes its place}, as `copy.deepcopy` uses it.
    """
    known = memo.get(id(module))
    if isinstance(known, nn.Module):
        return known
    if _has_own_copy(type(module)):
        return copy.deepcopy(module, memo)
    clone = module.__class__.__new__(module.__class__)
    memo[id(module)] = clone
    state = clone.__dict__
    for name, value in module.__dict__.items():
        if name == "_modules":
            state[name] = {key: None if m is None else clone_structure(m, memo) for key, m in value.items()}
        elif name in _TABLES:
            state[name] = {key: None if t is None else memo[id(t)] for key, t in value.items()}
        elif isinstance(value, _PLAIN):
            state[name] = value
        elif type(value) in _CONTAINERS and not value:
            state[name] = type(value)()
        elif type(value) is Tensor and id(value) not in memo:
            # What a forward pass or hook left behind may have a history, which deepcopy refuses.
            memo[id(value)] = state[name] = value.detach().clone()
        else:
            state[name] = copy.deepcopy(value, memo)
    return clone


def _slice(tensor: Tensor, axes: Mapping[int, NDArray[np.int64]]) -> Tensor:
    small = tensor.detach()
    # The axis that loses most goes first, so that the rest moves less memory.
    for axis in sorted(axes, key=lambda a: len(axes[a]) / tensor.shape[a]):
        small = small.index_select(axis, torch.from_numpy(axes[axis]).to(tensor.device))
    if not axes:
        small = small.clone()
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(small, requires_grad=tensor.requires_grad)
    return small


def _has_own_copy(cls: type[nn.Module]) -> bool:
    return (
        hasattr(cls, "__deepcopy__")
        or cls.__reduce_ex__ is not object.__reduce_ex__
        or cls.__getstate__ is not nn.Module.__getstate__
    )
