"""Own the rebuilder: a dense model and a plan give a new, smaller nn.Module of the same class.

After criteria made the plan; scores, finetuning and export take what comes out. The structure is cloned
and every tensor sliced on the way, so that nothing is copied that would be thrown away.

    small = rebuild(prunable, plan)
"""

from __future__ import annotations

import copy
from types import FunctionType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import PlanError
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import named_tensors
from autoprune.graph.example import note_example, note_plan
from autoprune.graph.orientation import owner_of
from autoprune.graph.patches import Rules, apply_patches, patches_for, rules_of
from autoprune.graph.positions import KeepPositions
from autoprune.rebuilding._slicing import Slicer
from autoprune.support.usercode import entry

_PLAIN = frozenset(
    (int, float, str, bool, bytes, complex, type(None), torch.dtype, torch.device, type, FunctionType)
)
"""Types whose values are shared rather than copied."""

_TABLES = frozenset(("_parameters", "_buffers"))

_STANDARD = frozenset(nn.Module().__dict__)
"""Attributes of every module (tables of hooks and the like): no two modules share them."""


@entry(PlanError, prunable=Prunable, plan=Plan)
def rebuild(prunable: Prunable, plan: Plan) -> nn.Module:
    """Build the smaller model that `plan` describes; the dense one is left as it is.

    Returns:
        A new module of the same class, in the same mode, whose parameters are slices (copies) of the dense
        ones, on the same devices, with the same requires_grad.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    small = narrow_to(prunable.model, prunable, plan)
    note_example(small, prunable.example_inputs)
    note_plan(small, plan)
    return small


def narrow_to(model: nn.Module, prunable: Prunable, plan: Plan) -> nn.Module:
    """Clone `model`, the traced one or its like on another device, narrowed to the plan, followers included.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    small = narrow(model, keep_positions(prunable, plan))
    apply_patches(small, prunable.numbers(plan))
    return small


def keep_positions(prunable: Prunable, plan: Plan) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Return which positions of which axes the plan keeps.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    prunable.check(plan)
    return prunable.positions.kept(plan)


def narrow(model: nn.Module, positions: KeepPositions) -> nn.Module:
    """Clone `model` with its tensors cut to `positions` and its modules' numbers to match."""
    memo: dict[int, object] = {}
    with torch.no_grad():
        narrowed = _cut_tensors(model, positions, memo)
    small = clone_structure(model, memo)
    rules: dict[type[nn.Module], Rules] = {}
    for path, dense in narrowed.items():
        known = memo.get(id(dense))
        # A module with its own way of copying need not tell what became of those below it.
        module = known if isinstance(known, nn.Module) else small.get_submodule(path)
        cls = type(dense)
        if cls not in rules:
            rules[cls] = rules_of(cls)
        state = module.__dict__
        for attribute, value in patches_for(dense, _shapes(module), rules[cls]).items():
            if attribute in state:
                state[attribute] = value  # a module's own way looks for tensors first
            else:
                setattr(module, attribute, value)
    return small


def _cut_tensors(model: nn.Module, positions: KeepPositions, memo: dict[int, object]) -> dict[str, nn.Module]:
    """Put what each tensor becomes into `memo`; returns the modules that hold a narrowed one, by path."""
    slicer = Slicer()
    smaller: set[int] = set()
    narrowed: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        cut = False
        for leaf, tensor in (*module._parameters.items(), *module._buffers.items()):
            if tensor is None:
                continue
            key = id(tensor)
            if key not in memo:
                axes = positions.get(prefix + leaf, {})
                memo[key] = slicer.cut(tensor, axes)
                if axes:
                    smaller.add(key)
            cut |= key in smaller
        if cut:
            # The numbers of a parametrized weight are those of the module that uses it.
            owner = owner_of(prefix)[0]
            narrowed[owner] = module if owner == path else model.get_submodule(owner)
    return narrowed


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's own tensors, with those that its parametrizations store."""
    local = [*module._parameters.items(), *module._buffers.items()]
    parametrized = module._modules.get("parametrizations")
    if parametrized is not None:
        local.extend((f"parametrizations.{leaf}", tensor) for leaf, tensor in named_tensors(parametrized))
    return {leaf: tuple(tensor.shape) for leaf, tensor in local if tensor is not None}


def clone_structure(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    """Clone a module and all below it; its tensors come from `memo`, the rest is copied, or shared if plain.

    Args:
        module: what to clone.
        memo: {id of each parameter and buffer: the tensor that takes its place}, as `copy.deepcopy` uses it.
    """
    known = memo.get(id(module))
    if isinstance(known, nn.Module):
        return known
    cls = module.__class__
    if _has_own_copy(cls):
        return copy.deepcopy(module, memo)
    clone = cls.__new__(cls)
    memo[id(module)] = clone
    state = clone.__dict__
    for name, value in module.__dict__.items():
        kind = type(value)
        if kind in _PLAIN:
            state[name] = value
        elif name in _STANDARD and not value:
            state[name] = kind()
        elif name == "_modules":
            state[name] = {key: None if m is None else clone_structure(m, memo) for key, m in value.items()}
        elif name in _TABLES:
            state[name] = {key: None if t is None else memo[id(t)] for key, t in value.items()}
        else:
            state[name] = _clone_value(value, memo)
    return clone


def _clone_value(value: object, memo: dict[int, object]) -> object:
    if type(value) is tuple and _PLAIN.issuperset(map(type, value)):
        return value
    if id(value) not in memo:
        if type(value) is list and _PLAIN.issuperset(map(type, value)):
            memo[id(value)] = value.copy()
        elif type(value) is Tensor:
            # What a forward pass or hook left behind may have a history, which deepcopy refuses.
            memo[id(value)] = value.detach().clone()
    return copy.deepcopy(value, memo)


def _has_own_copy(cls: type[nn.Module]) -> bool:
    return (
        hasattr(cls, "__deepcopy__")
        or cls.__reduce_ex__ is not object.__reduce_ex__
        or cls.__getstate__ is not nn.Module.__getstate__
    )
