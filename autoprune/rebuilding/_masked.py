"""Run the dense graph on random tensors with the dropped channels and branches set to zero.

`verify` compares its outputs with those of a rebuilt model that holds slices of the same random tensors.

Example:
    reference = MaskedReference(prunable, plan, generator)
    outputs = reference.outputs(inputs)
    reference.states    # {parameter or buffer: its random values}
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
"""Floating types with fewer bits than float64."""

_NORMS = {"batch_norm", "instance_norm"}
"""Operators whose fourth and fifth arguments are a running mean and a running variance."""

_PRIOR = 16
"""Weight of the layer's average in the statistics of a channel, as a number of positions.

A variance over one position is 0, and a variance over four positions is sometimes close to 0. Dividing by it
amplifies rounding errors: to 1e-11 of the output instead of 1e-14 for a MobileNetV2 at 64 pixels.
"""


class MaskedReference(Interpreter):
    """The dense graph, run in float64 on random tensors with the dropped channels set to zero everywhere.

    When the run reaches a normalisation, its running statistics are fitted to its input. A trained model's
    own statistics do not suit random weights: activations divided by them grow or shrink from layer to layer,
    and rounding errors grow with them.

    Args:
        prunable: the traced dense model.
        plan: the channels to keep. All others are dropped.
        generator: draws the random tensors.

    Attributes:
        states: {parameter or buffer: its random replacement}, with shared tensors under their first name. The
            running statistics are final after `outputs` has run.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """

    def __init__(self, prunable: Prunable, plan: Plan, generator: torch.Generator) -> None:
        super().__init__(prunable.captured.program.graph_module, garbage_collect_values=True)
        self.states = {name: _randomised(name, t, generator) for name, t in named_tensors(prunable.model)}
        self._prunable = prunable
        self._dropped = prunable.dropped(plan)
        self._parameters = {name for name, _ in prunable.model.named_parameters()}
        self._fitted: set[str] = set()
        self._sums = {name: at for block in prunable.dropped_blocks(plan) for name, at in block.sums.items()}

    def outputs(self, inputs: object) -> list[Tensor]:
        """Run the graph and return the tensors among its outputs."""
        captured = self._prunable.captured
        arguments = captured.arguments(inputs, self._state, lambda constant: _in_double(constant.cpu()))
        return [value for value in captured.outputs(self.run(*arguments)) if isinstance(value, Tensor)]

    def _state(self, name: str) -> Tensor:
        # Buffers are copied because a forward pass may write into them. Parameters are large and not written.
        return self.states[name] if name in self._parameters else self.states[name].clone()

    def fetch_args_kwargs_from_env(self, n: Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Mask the input of a layer again, and set a dropped branch to zero in its sum.

        The layer's weight is not masked, and the model's code may have written into dropped channels.
        """
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        if n.name in self._sums:
            branch = self._sums[n.name]
            args = (*args[:branch], torch.zeros_like(args[branch]), *args[branch + 1 :])
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
            return None  # such a node checks that a dtype is the one at tracing, and float64 is not
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
        """Run one operator in float64 on the CPU, even if its arguments name another dtype or device."""
        args, kwargs = pytree.tree_map(_double_for_float, (args, kwargs))
        kwargs = {name: "cpu" if name == "device" else value for name, value in kwargs.items()}
        result = super().call_function(target, args, kwargs)  # type: ignore[arg-type]  # as Interpreter passes it
        return _in_double_if_made(result, (args, kwargs))

    def _fit_statistics(self, node: Node) -> None:
        """Scale the running statistics of a normalisation to its input, if they are parameters or buffers."""
        nodes = [each for each in node.args[3:5] if isinstance(each, Node)]
        names = [name for each in nodes if (name := self._prunable.captured.states.get(each.name))]
        # A normalisation that runs twice keeps the fit of its first run.
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
                # A tensor that is zero there already is not copied: a view must stay a view, so that writing
                # into it reaches its base.
                if bool(result.index_select(axis, gone).any()):
                    # Multiplying by a mask would keep the nan of a dropped channel after a division by zero.
                    result = result.index_fill(axis, gone, 0)
        return result


def _moments(source: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean and population variance of each channel, drawn to 0 and the layer's mean square.

    The fewer positions a channel has, the more the layer's average counts (see `_PRIOR`).
    """
    others = [axis for axis in range(source.ndim) if axis != 1]
    positions = source.numel() / max(1, source.shape[1])
    trust = positions / (positions + _PRIOR)
    spread = float(source.square().mean()) or 1.0
    return trust * source.mean(others), trust * source.var(others, unbiased=False) + (1 - trust) * spread


def _only_weighs(node: Node) -> bool:
    """Return whether a parameter is used only as the weight of layers, whose inputs are masked."""
    return node.op == "placeholder" and all(
        operator_name(user) in LAYER_OPERATORS and node not in user.args[:1] for user in node.users
    )


class InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
    """A block in which a model's casts and factory functions give float64 instead of a shorter type."""

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
    """Convert a tensor that was made from no other tensor to float64, since it has torch's default type."""
    made = not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(inputs))
    return _in_double(result) if made and isinstance(result, Tensor) else result


def _in_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def _randomised(name: str, tensor: Tensor, generator: torch.Generator) -> Tensor:
    """Return a random float64 replacement without zeros or equal values that keeps activations near one.

    Running statistics are those of an input with mean 0 and variance 1.
    """
    if not tensor.is_floating_point():
        return tensor.detach().cpu().clone()
    shape = tensor.shape
    leaf = name.rpartition(".")[2]
    is_parameter = isinstance(tensor, nn.Parameter)
    if is_parameter and tensor.ndim >= 2:
        # Drawing in float32 is several times faster, and any float32 value is exact in float64.
        weight = torch.randn(shape, generator=generator).double()
        return weight.div_(math.sqrt(max(1, math.prod(shape[1:]))))
    # A frozen normalisation holds its scale and offset as buffers.
    is_vector = is_parameter or (tensor.ndim == 1 and leaf in ("weight", "bias"))
    if leaf == "running_mean" or (is_vector and leaf != "weight"):
        return 0.3 * torch.randn(shape, generator=generator, dtype=torch.float64)
    scale = 0.5 + torch.rand(shape, generator=generator, dtype=torch.float64)
    if is_vector or leaf == "running_var":
        return scale
    # Other buffers may be masks or tables, so their signs and zeros are kept.
    return tensor.detach().cpu().double() * scale
