"""Own the rebuilder: a dense model and a plan give a new, smaller nn.Module of the same class.

After criteria made the plan; scores, finetuning and export take what comes out. The structure is cloned
and every tensor sliced on the way, so that nothing is copied that would be thrown away.

    small = rebuild(prunable, plan)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import first_names, named_tensors
from autoprune.graph.example import note_example
from autoprune.graph.patches import patches_for

_PLAIN = (int, float, str, bool, bytes, complex, type(None), torch.dtype, torch.device, type)
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
    prunable.dropped(plan)  # raises where the plan does not fit
    masks: dict[str, dict[int, NDArray[np.bool_]]] = {}
    sizes = {name: tensor.shape for name, tensor in named_tensors(prunable.model)}
    for name, index in plan.items():
        group = prunable.group(name)
        if len(index) == group.width:
            continue
        gone = np.ones(group.width, bool)
        gone[index] = False
        for member in group.members:
            axes = masks.setdefault(member.parameter, {})
            if member.axis not in axes:
                axes[member.axis] = np.ones(sizes[member.parameter][member.axis], bool)
            axes[member.axis][member.index[gone].ravel()] = False
    return {name: {axis: np.flatnonzero(mask) for axis, mask in axes.items()} for name, axes in masks.items()}


def narrow(model: nn.Module, positions: KeepPositions) -> nn.Module:
    """Clone `model` with its tensors cut to `positions` and its modules' numbers to match."""
    names = first_names(model)
    memo: dict[int, object] = {}
    for name, tensor in named_tensors(model):
        memo[id(tensor)] = _slice(tensor, positions.get(names[name], {}))
    narrowed = {name.rpartition(".")[0] for name, first in names.items() if first in positions}
    small = clone_structure(model, memo)
    for path in narrowed:
        module = small.get_submodule(path)
        local = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        shapes = {name: tuple(tensor.shape) for name, tensor in local}
        for attribute, value in patches_for(model.get_submodule(path), shapes).items():
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
        elif not value and isinstance(value, dict | set | list | tuple):
            state[name] = copy.copy(value)
        else:
            state[name] = copy.deepcopy(value, memo)
    return clone


def _slice(tensor: Tensor, axes: Mapping[int, NDArray[np.int64]]) -> Tensor:
    with torch.no_grad():
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
        or cls.__getstate__ is not object.__getstate__
    )
