"""Own the proof of a rebuild: the small model computes what the dense one does with dropped channels masked.

After `rebuild`; tests and careful users call it before they trust a plan.

    difference = verify(prunable, plan, small)     # about 1e-15; a wrong cut gives about 1
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.errors import VerificationError
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import call, first_names, named_tensors, unchanged
from autoprune.graph.context import Value
from autoprune.graph.positions import KeepPositions
from autoprune.graph.propagate import operator_name
from autoprune.rebuild import clone_structure, keep_positions

TOLERANCE = 1e-9
"""Largest relative difference in float64 of a right rebuild that crosses no normalisation."""

_SHORTER = (torch.float32, torch.bfloat16, torch.float16)


def verify(prunable: Prunable, plan: Plan, small: nn.Module, *, seed: int = 0) -> float:
    """Compare a freshly rebuilt model with the masked dense one, in float64 on randomised tensors.

    Untrained heads and zero-initialised layers hide errors, so both run with random parameters and buffers
    in place of their own: the dense model as it was traced, with every dropped channel set to zero after each
    operator; the small one as it is, with the slices that the plan names.

    Args:
        prunable: the traced dense model.
        plan: the plan that `small` was rebuilt with.
        small: the rebuilt model, before any training; it is not changed.
        seed: of the random tensors and inputs.

    Returns:
        The largest |small - reference| / max |reference| over all outputs. At most TOLERANCE where the plan
        narrows no group that crosses a normalisation over channels; those change the function by design.

    Raises:
        VerificationError: a tensor of `small` is missing, has another shape, or is not the slice that the
            plan names; or an output is not finite or has another shape.
    """
    positions = keep_positions(prunable, plan)
    _check_slices(prunable.model, positions, small)
    generator = torch.Generator().manual_seed(seed)
    random = {name: _randomised(name, t, generator) for name, t in named_tensors(prunable.model)}
    inputs = pytree.tree_map(lambda value: _random_input(value, generator), prunable.example_inputs)
    with torch.no_grad():
        reference = _MaskedReference(prunable, prunable.dropped(plan), random).outputs(inputs)
        copy = _with_tensors(small, prunable.model, random, positions)
        for module in copy.modules():
            module.training = False
        with unchanged(copy), _InDouble():  # type: ignore[no-untyped-call]  # torch gives no hints
            actual = [leaf for leaf in pytree.tree_leaves(call(copy, inputs)) if isinstance(leaf, Tensor)]
    return _largest_difference(actual, reference)


def _check_slices(model: nn.Module, positions: KeepPositions, small: nn.Module) -> None:
    names = first_names(model)
    dense = dict(named_tensors(model, shared=True))
    cut = dict(named_tensors(small, shared=True))
    if dense.keys() != cut.keys():
        odd = sorted(dense.keys() ^ cut.keys())
        raise VerificationError(f"{odd[0]}: is in one of the two models only; was `small` made by rebuild?")
    for name, tensor in cut.items():
        expected = _take(dense[name].detach(), positions.get(names[name], {}))
        if tensor.shape != expected.shape:
            raise VerificationError(
                f"{name}: shape {list(tensor.shape)}, the plan gives {list(expected.shape)} "
                f"of {list(dense[name].shape)}."
            )
        if not torch.equal(tensor.detach(), expected):
            raise VerificationError(f"{name}: its values are not the slice that the plan names.")


def _take(tensor: Tensor, axes: dict[int, NDArray[np.int64]] | object) -> Tensor:
    for axis, kept in axes.items() if isinstance(axes, dict) else ():
        tensor = tensor.index_select(axis, torch.from_numpy(kept).to(tensor.device))
    return tensor


def _randomised(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return a float64 stand-in whose values are neither zero nor alike, and keep activations near one."""
    if not tensor.is_floating_point():
        return tensor.detach().cpu().clone()
    shape = tensor.shape
    leaf = name.rpartition(".")[2]
    is_parameter = isinstance(tensor, nn.Parameter)
    if is_parameter and tensor.ndim >= 2:
        # Drawn in float32, which is several times faster; they are float64 numbers all the same.
        weight = torch.randn(shape, generator=generator).double()
        return weight.div_(math.sqrt(max(1, math.prod(shape[1:]))))
    if leaf == "running_mean" or (is_parameter and leaf != "weight"):
        return 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    # Other buffers may be masks, tables or variances: their signs and zeros mean something.
    return scale if is_parameter else tensor.detach().cpu().double() * scale


def _random_input(value: object, generator: torch.Generator) -> object:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return value.cpu() if isinstance(value, Tensor) else value


def _with_tensors(
    small: nn.Module, model: nn.Module, random: dict[str, Tensor], positions: KeepPositions
) -> nn.Module:
    """Return a copy of `small` that holds the named slices of the random tensors."""
    names = first_names(model)
    memo: dict[int, object] = {}
    for name, tensor in named_tensors(small):
        values = _take(random[names[name]], positions.get(names[name], {}))
        memo[id(tensor)] = nn.Parameter(values) if isinstance(tensor, nn.Parameter) else values
    return clone_structure(small, memo)


class _MaskedReference(Interpreter):
    """Run the dense graph, setting dropped channels to zero wherever they appear."""

    def __init__(self, prunable: Prunable, dropped: NDArray[np.bool_], states: dict[str, Tensor]) -> None:
        super().__init__(prunable.captured.program.graph_module, garbage_collect_values=True)
        self._prunable = prunable
        self._dropped = dropped
        self._states = states
        self._parameters = {name for name, _ in prunable.model.named_parameters()}

    def outputs(self, inputs: object) -> list[Tensor]:
        """Return the tensors among the graph's user outputs."""
        captured = self._prunable.captured
        given = iter(pytree.tree_leaves(inputs))
        arguments: list[object] = []
        for node in captured.nodes:
            if node.op == "placeholder":
                if node.name in captured.states:
                    name = captured.states[node.name]
                    state = self._states[name]
                    # A forward pass may write into a buffer; a large parameter is not copied for nothing.
                    arguments.append(state if name in self._parameters else state.clone())
                elif node.name in captured.constants:
                    arguments.append(_in_double(captured.constants[node.name].cpu()))
                else:
                    arguments.append(next(given))
        results = self.run(*arguments)
        user = set(captured.program.graph_signature.user_outputs)
        output = captured.nodes[-1]
        nodes = [getattr(leaf, "name", None) for leaf in pytree.tree_leaves(output.args)]
        named = zip(nodes, pytree.tree_leaves(results), strict=True)
        return [value for name, value in named if name in user and isinstance(value, Tensor)]

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Mask what enters a layer again, since its weight is not masked: code may have written into it."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if n.op == "call_function" and operator_name(n) in _LAYERS:
            source, values = args[0], self._prunable.values[str(n.args[0])]
            if isinstance(source, Tensor) and isinstance(values, Value):
                args = (self._mask(source, values), *args[1:])
        return args, kwargs

    def run_node(self, n: Node) -> object:
        """Run one operator in float64 and mask what comes out."""
        if n.op == "call_function" and operator_name(n).startswith("_assert"):
            return None  # checks of the types that tracing saw, which float64 is not
        result = super().run_node(n)
        if n.op == "output" or n.name not in self._prunable.values or _only_weighs(n):
            return result
        values = self._prunable.values[n.name]
        if isinstance(result, Tensor) and isinstance(values, Value):
            return self._mask(result, values)
        if isinstance(result, tuple | list) and isinstance(values, list):
            return [self._mask(part, value) for part, value in zip(result, values, strict=True)]
        return result

    def call_function(self, target: object, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Run in float64 where the model was traced to ask for float32."""
        args, kwargs = pytree.tree_map(_double_for_float, (args, kwargs))
        kwargs = {name: "cpu" if name == "device" else value for name, value in kwargs.items()}
        result = super().call_function(target, args, kwargs)  # type: ignore[arg-type]  # as Interpreter passes it
        return _in_double_if_made(result, (args, kwargs))

    def _mask(self, result: Tensor, value: Value) -> Tensor:
        for axis, labels in enumerate(value.labels):
            if labels is None:
                continue
            kept = self._prunable.grouping.kept(labels, self._dropped)
            if not kept.all():
                gone = torch.from_numpy(np.flatnonzero(~kept))
                # A view of what is masked already stays one, so that writing into it reaches its base.
                if bool(result.index_select(axis, gone).any()):
                    # Not a product: a dropped channel may hold nan where it is divided by zero.
                    result = result.index_fill(axis, gone, 0)
        return result


def _only_weighs(node: Node) -> bool:
    """Tell whether a parameter only weighs what enters a layer: that is masked, and so is what leaves."""
    return node.op == "placeholder" and all(
        operator_name(user) in _LAYERS and node not in user.args[:1] for user in node.users
    )


_LAYERS = {"linear", *(f"conv{n}d" for n in (1, 2, 3)), *(f"conv_transpose{n}d" for n in (1, 2, 3))}


class _InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
    """Run casts and factories of a model in float64 where its code asks for a shorter type."""

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run one operator."""
        args, kwargs = pytree.tree_map(_double_for_float, (args, dict(kwargs or {})))
        return _in_double_if_made(func(*args, **kwargs), (args, kwargs))


def _double_for_float(value: object) -> object:
    return torch.float64 if isinstance(value, torch.dtype) and value in _SHORTER else value


def _in_double_if_made(result: object, inputs: object) -> object:
    """Bring what an operator made without any tensor to float64: its type is the default, not the model's."""
    made = not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(inputs))
    return _in_double(result) if made and isinstance(result, Tensor) else result


def _in_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _largest_difference(actual: Sequence[Tensor], reference: Sequence[Tensor]) -> float:
    if len(actual) != len(reference):
        raise VerificationError(f"{len(actual)} outputs of the small model, {len(reference)} of the dense.")
    largest = 0.0
    for number, (small, dense) in enumerate(zip(actual, reference, strict=True)):
        if small.shape != dense.shape:
            raise VerificationError(
                f"output {number}: shape {list(small.shape)}, expected {list(dense.shape)}."
            )
        if not (torch.isfinite(small).all() and torch.isfinite(dense).all()):
            raise VerificationError(f"output {number}: holds values that are not finite.")
        scale = float(dense.abs().max()) if dense.numel() else 0.0
        difference = float((small - dense).abs().max()) if dense.numel() else 0.0
        largest = max(largest, difference / scale if scale else difference)
    return largest
