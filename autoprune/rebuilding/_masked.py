"""The reference of a proof: the dense graph on random tensors, with dropped channels set to zero.

`verify` compares it with a rebuilt model that holds the same random tensors, cut as its plan says.

    reference = MaskedReference(prunable, plan, generator)
    outputs = reference.outputs(inputs)
    reference.states    # {parameter or buffer: its random values}, for the model to compare with
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import named_tensors
from autoprune.graph.context import Value
from autoprune.graph.propagate import LAYER_OPERATORS, operator_name

_SHORTER = (torch.float32, torch.bfloat16, torch.float16)

_NORMS = {"batch_norm", "instance_norm"}
"""Operators whose fourth and fifth arguments are a running mean and a running variance."""

_PRIOR = 16
"""Positions of the layer's average that are added to those of a channel, as its statistics are measured.

A variance over one position is 0, and one over four is close to it now and then. Dividing by that blows up
rounding errors: to 1e-11 of the output instead of 1e-14 over a MobileNetV2 at 64 pixels.
"""


class MaskedReference(Interpreter):
    """Runs the dense graph in float64 on random tensors, with dropped channels set to zero wherever they are.

    The running statistics of a normalisation are fitted to its input as the run reaches it, so they suit the
    random weights before it. A trained model's own statistics do not: divided by them, random activations
    explode or die, and rounding errors with them.

    Args:
        prunable: the traced dense model.
        plan: names the dropped channels.
        generator: of the random tensors.

    Attributes:
        states: {parameter or buffer: its random stand-in}, shared tensors under their first name. They are
            final once `outputs` has run.

    Raises:
        PlanError: the plan does not fit.
    """

    def __init__(self, prunable: Prunable, plan: Plan, generator: torch.Generator) -> None:
        super().__init__(prunable.captured.program.graph_module, garbage_collect_values=True)
        self.states = {name: _randomised(name, t, generator) for name, t in named_tensors(prunable.model)}
        self._prunable = prunable
        self._dropped = prunable.dropped(plan)
        self._parameters = {name for name, _ in prunable.model.named_parameters()}
        self._fitted: set[str] = set()

    def outputs(self, inputs: object) -> list[Tensor]:
        """Return the tensors among the graph's user outputs."""
        captured = self._prunable.captured
        arguments = captured.arguments(inputs, self._state, lambda constant: _in_double(constant.cpu()))
        return [value for value in captured.outputs(self.run(*arguments)) if isinstance(value, Tensor)]

    def _state(self, name: str) -> Tensor:
        # A forward pass may write into a buffer. A large parameter is not copied for nothing.
        return self.states[name] if name in self._parameters else self.states[name].clone()

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Mask the input of a layer again: its weight is not masked, and code may have written into it."""
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if n.op == "call_function" and operator_name(n) in LAYER_OPERATORS:
            source, values = args[0], self._prunable.values[str(n.args[0])]
            if isinstance(source, Tensor) and isinstance(values, Value):
                args = (self._mask(source, values), *args[1:])
        return args, kwargs

    def run_node(self, n: Node) -> object:
        """Run one operator in float64 and mask its results."""
        if n.op == "call_function" and operator_name(n) in _NORMS:
            self._fit_statistics(n)
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
        """Run in float64 even if the traced model asks for float32."""
        args, kwargs = pytree.tree_map(_double_for_float, (args, kwargs))
        kwargs = {name: "cpu" if name == "device" else value for name, value in kwargs.items()}
        result = super().call_function(target, args, kwargs)  # type: ignore[arg-type]  # as Interpreter passes it
        return _in_double_if_made(result, (args, kwargs))

    def _fit_statistics(self, node: Node) -> None:
        """Bring the running statistics of a normalisation, if they are states, to the scale of its input."""
        nodes = [each for each in node.args[3:5] if isinstance(each, Node)]
        names = [name for each in nodes if (name := self._prunable.captured.states.get(each.name))]
        # A normalisation that is used twice keeps the fit of its first use.
        if len(names) < 2 or self._fitted.issuperset(names):
            return
        self._fitted.update(names)
        mean, variance = _moments(self.env[node.args[0]])  # type: ignore[index]  # its input is a node
        mean_name, variance_name = names
        self.states[mean_name] = mean + variance.sqrt() * self.states[mean_name]
        self.states[variance_name] = variance * self.states[variance_name]
        for each, name in zip(nodes, names, strict=True):
            self.env[each] = self.states[name].clone()

    def _mask(self, result: Tensor, value: Value) -> Tensor:
        for axis, labels in enumerate(value.labels):
            if labels is None:
                continue
            kept = self._prunable.grouping.kept(labels, self._dropped)
            if not kept.all():
                gone = torch.from_numpy(np.flatnonzero(~kept))
                # A view of a masked tensor stays a view, so that writing into it reaches its base.
                if bool(result.index_select(axis, gone).any()):
                    # Not a product: a dropped channel may hold nan, after a division by zero.
                    result = result.index_fill(axis, gone, 0)
        return result


def _moments(source: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and population variance of each channel, less trusted if it has few positions."""
    others = [axis for axis in range(source.ndim) if axis != 1]
    positions = source.numel() / max(1, source.shape[1])
    trust = positions / (positions + _PRIOR)
    spread = float(source.square().mean()) or 1.0
    return trust * source.mean(others), trust * source.var(others, unbiased=False) + (1 - trust) * spread


def _only_weighs(node: Node) -> bool:
    """Return whether a parameter is only the weight of a layer, whose input and output are masked."""
    return node.op == "placeholder" and all(
        operator_name(user) in LAYER_OPERATORS and node not in user.args[:1] for user in node.users
    )


class InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
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
    """Bring a tensor made from no other to float64: its type is the default, not the model's."""
    made = not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(inputs))
    return _in_double(result) if made and isinstance(result, Tensor) else result


def _in_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _randomised(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return a float64 stand-in whose values are neither zero nor alike, and keep activations near one.

    Running statistics are relative to an input of mean 0 and variance 1.
    """
    if not tensor.is_floating_point():
        return tensor.detach().cpu().clone()
    shape = tensor.shape
    leaf = name.rpartition(".")[2]
    is_parameter = isinstance(tensor, nn.Parameter)
    if is_parameter and tensor.ndim >= 2:
        # Drawn in float32, which is several times faster. They are float64 numbers all the same.
        weight = torch.randn(shape, generator=generator).double()
        return weight.div_(math.sqrt(max(1, math.prod(shape[1:]))))
    # A frozen normalisation holds its scale and offset as buffers.
    is_vector = is_parameter or (tensor.ndim == 1 and leaf in ("weight", "bias"))
    if leaf == "running_mean" or (is_vector and leaf != "weight"):
        return 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    if is_vector or leaf == "running_var":
        return scale
    # Other buffers may be masks or tables: their signs and zeros mean something.
    return tensor.detach().cpu().double() * scale
