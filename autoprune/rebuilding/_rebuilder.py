"""Make a new, smaller nn.Module of the same class from a dense model and a plan.

The module structure is cloned and every tensor is sliced in the same pass, so no dropped channel is copied.

Example:
    small = rebuild(prunable, plan)
"""

from __future__ import annotations

import copy
from collections import OrderedDict, deque
from collections.abc import Collection, Iterable
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.errors import PlanError, TraceError, summary_of
from autoprune.graph import Plan, Prunable
from autoprune.graph.attached import note_example, note_plan
from autoprune.graph.blocks import StandIn, replaced_by
from autoprune.graph.capture import named_tensors
from autoprune.graph.orientation import owner_of
from autoprune.graph.patches import Rules, apply_patches, patches_for, rules_of
from autoprune.graph.positions import KeepPositions
from autoprune.rebuilding._slicing import Slicer
from autoprune.support.usercode import entry

_PLAIN = frozenset(
    (int, float, str, bool, bytes, complex, type(None), torch.dtype, torch.device, type, FunctionType)
)
"""Types whose values are shared rather than copied."""

_TENSOR_TABLES = frozenset(("_parameters", "_buffers"))

_STANDARD = frozenset(nn.Module().__dict__)
"""Attributes that every module has for itself, such as its tables of hooks."""


@entry(PlanError, prunable=Prunable, plan=Plan)
def rebuild(prunable: Prunable, plan: Plan) -> nn.Module:
    """Build the smaller model that `plan` describes. The dense model is not changed.

    The modules of dropped blocks are replaced by modules that add nothing (see `autoprune.graph.blocks`).

    Args:
        prunable: the traced dense model.
        plan: the channels to keep.

    Returns:
        A new module of the same class and in the same mode. Its parameters are copied slices of the dense
        parameters, on the same devices and with the same requires_grad.

    Raises:
        PlanError: the plan does not fit the model's groups.

    Example:
        small = autoprune.rebuild(prunable, plan)  # `prunable.model` stays as it is
    """
    small = narrow_to(prunable.model, prunable, plan)
    note_example(small, prunable.example_inputs, prunable.target)
    note_plan(small, plan)
    return small


def narrow_to(model: nn.Module, prunable: Prunable, plan: Plan) -> nn.Module:
    """Clone a model narrowed to a plan, with the numbers of its modules that follow a width.

    Args:
        model: the traced model, or a copy of it on another device.
        prunable: the traced model's groups.
        plan: the channels to keep.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    small = narrow(model, keep_positions(prunable, plan), prunable.stand_ins(plan))
    apply_patches(small, prunable.numbers(plan))
    return small


def keep_positions(prunable: Prunable, plan: Plan) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Return {tensor: {axis: the positions that the plan keeps}}, without axes that stay whole.

    Tensors of dropped blocks are left out too.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    prunable.check(plan)
    kept = prunable.positions.kept(prunable.of_groups(plan))
    for block in prunable.dropped_blocks(plan):
        for name in block.tensors:
            kept.pop(name, None)
    return kept


def narrow(model: nn.Module, positions: KeepPositions, stand_ins: Iterable[StandIn] = ()) -> nn.Module:
    """Clone `model` with its tensors cut to `positions`, and set its modules' numbers to the new shapes.

    Modules that `stand_ins` replace are not cloned, nor are their tensors.
    """
    replaced = dict(replaced_by(model, stand_ins))
    gone = {inner for module in replaced for inner in module.modules()}
    # A clone takes from the memo whatever is there.
    memo: dict[int, object] = {id(module): dropped for module, dropped in replaced.items()}
    with torch.no_grad():
        narrowed = _cut_tensors(model, positions, memo, gone)
    small = clone_structure(model, memo)
    rules: dict[type[nn.Module], Rules] = {}
    for path, dense in narrowed.items():
        known = memo.get(id(dense))
        # A module that copies itself need not put the modules below it into the memo.
        module = known if isinstance(known, nn.Module) else small.get_submodule(path)
        cls = type(dense)
        if cls not in rules:
            rules[cls] = rules_of(cls)
        state = module.__dict__
        for attribute, value in patches_for(dense, _shapes(module), rules[cls]).items():
            if attribute in state:
                state[attribute] = value  # faster than nn.Module.__setattr__, which looks for tensors first
            else:
                setattr(module, attribute, value)
    return small


def _cut_tensors(
    model: nn.Module, positions: KeepPositions, memo: dict[int, object], gone: Collection[nn.Module]
) -> dict[str, nn.Module]:
    """Put the cut copy of each tensor into `memo`, except those of modules that are `gone`.

    Returns:
        {path: module} of the modules that hold a narrowed tensor.
    """
    slicer = Slicer()
    smaller: set[int] = set()
    narrowed: dict[str, nn.Module] = {}
    for path, module in model.named_modules():
        if module in gone:
            continue
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
            # A parametrized weight lies in a module of its own, but its sizes are in the module that uses it.
            owner = owner_of(prefix)[0]
            narrowed[owner] = module if owner == path else model.get_submodule(owner)
    return narrowed


def _shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Return the shapes of a module's own tensors and of those that its parametrizations hold."""
    local = [*module._parameters.items(), *module._buffers.items()]
    parametrized = module._modules.get("parametrizations")
    if parametrized is not None:
        local.extend((f"parametrizations.{leaf}", tensor) for leaf, tensor in named_tensors(parametrized))
    return {leaf: tuple(tensor.shape) for leaf, tensor in local if tensor is not None}


def clone_structure(module: nn.Module, memo: dict[int, object]) -> nn.Module:
    """Clone a module and its submodules, with the tensors from `memo` in place of their own.

    Numbers, strings, classes and functions are shared. Other attributes are copied. The parts that Python
    cannot copy are shared, such as locks and operators of `torch.library.custom_op`.

    Args:
        module: the module to clone. It is not changed.
        memo: {id of each parameter and buffer: the tensor that replaces it}, as `copy.deepcopy` uses it.

    Raises:
        TraceError: Python cannot copy an attribute that holds tensors or modules.
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
        elif name in _TENSOR_TABLES:
            state[name] = {key: None if t is None else memo[id(t)] for key, t in value.items()}
        else:
            state[name] = _clone_value(value, memo, f"{cls.__name__}.{name}")
    return clone


def _clone_value(value: Any, memo: dict[int, object], where: str) -> Any:
    if type(value) is tuple and _PLAIN.issuperset(map(type, value)):
        return value
    if id(value) not in memo:
        if type(value) is list and _PLAIN.issuperset(map(type, value)):
            memo[id(value)] = value.copy()
        elif type(value) is Tensor:
            # A tensor that a forward pass left behind may have a gradient history, which deepcopy refuses.
            memo[id(value)] = value.detach().clone()
    size = len(memo)
    try:
        return copy.deepcopy(value, memo)
    except TypeError as error:
        while len(memo) > size:  # unfinished copies
            memo.popitem()
        if type(value) in (list, tuple, dict, OrderedDict):
            return _clone_items(value, memo, where)
        if _reaches_tensors(value):
            raise TraceError(
                f"model: {where} holds tensors or modules and Python cannot copy it: {summary_of(error)}. "
                f"Give {type(value).__name__} a method __deepcopy__, or keep the part that cannot be copied "
                "elsewhere."
            ) from error
        memo[id(value)] = value
        return value


def _clone_items(value: Any, memo: dict[int, object], where: str) -> Any:
    """Clone a list, a tuple or a dict item by item."""
    if type(value) is tuple:
        copied = tuple([_clone_value(item, memo, where) for item in value])
        return memo.setdefault(id(value), copied)
    clone: Any = type(value)()
    memo[id(value)] = clone  # before its items, which may hold it
    if type(value) is list:
        clone.extend(_clone_value(item, memo, where) for item in value)
    else:
        for key, item in value.items():
            clone[_clone_value(key, memo, where)] = _clone_value(item, memo, where)
    return clone


def _reaches_tensors(value: object) -> bool:
    """Return whether a value holds a tensor or a module in collections or attributes, at any depth."""
    seen: set[int] = set()
    rest = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, Tensor | nn.Module):
            return True
        if id(each) in seen or isinstance(each, type | ModuleType | FunctionType):
            continue
        seen.add(id(each))
        if isinstance(each, dict):
            rest.extend((*each.keys(), *each.values()))
        elif isinstance(each, list | tuple | set | frozenset | deque):
            rest.extend(each)
        rest.extend(getattr(each, "__dict__", {}).values())
    return False


def _has_own_copy(cls: type[nn.Module]) -> bool:
    return (
        hasattr(cls, "__deepcopy__")
        or cls.__reduce_ex__ is not object.__reduce_ex__
        or cls.__getstate__ is not nn.Module.__getstate__
    )
