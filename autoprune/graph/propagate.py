"""Propagate labels through a traced graph: the rule of each operator labels its outputs.

Example:
    axes = ParameterAxes.of(model, store)
    values = propagate(captured, axes, store, terms)
    values["conv2d"]          # Value with labels along axis 1
"""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils import _pytree as pytree

from autoprune.graph.capture import Captured, named_tensors
from autoprune.graph.context import MacTerm, OpContext, Value
from autoprune.graph.labels import OUTPUT, LabelStore, LabelVector
from autoprune.graph.orientation import WITH_KERNELS, owner_of
from autoprune.graph.rules import LAYER_RULES, LayerRule, elementwise

NodeValue = Value | list[Value]

LAYER_OPERATORS = frozenset(
    ("linear", *(f"conv{n}d" for n in (1, 2, 3)), *(f"conv_transpose{n}d" for n in (1, 2, 3)))
)
"""Operators that multiply their first argument by a weight, their second argument."""

_NO_RULE = "has no rule that ties its channels; add a row to LAYER_RULES"


@dataclass(frozen=True, eq=False)
class ParameterAxes:
    """The labels of every axis of every parameter and buffer.

    An axis of size 1 and the kernel axes of a convolution have no labels, because a reshape may merge them
    with an axis that has some.
    """

    labels: Mapping[str, tuple[LabelVector | None, ...]]

    @staticmethod
    def of(model: nn.Module, store: LabelStore) -> ParameterAxes:
        """Make new labels for every axis."""
        return ParameterAxes(
            {
                name: tuple(
                    store.fresh(size) if size > 1 and axis < _channel_axes(model, name) else None
                    for axis, size in enumerate(tensor.shape)
                )
                for name, tensor in named_tensors(model)
            }
        )


def _channel_axes(model: nn.Module, name: str) -> int | float:
    """Return the number of leading axes of a tensor that may hold channels."""
    return 2 if isinstance(model.get_submodule(owner_of(name)[0]), tuple(WITH_KERNELS)) else math.inf


def propagate(
    captured: Captured, axes: ParameterAxes, store: LabelStore, terms: list[MacTerm] | None
) -> dict[str, NodeValue]:
    """Apply the rule of each operator, in execution order.

    Args:
        captured: the traced graph.
        axes: labels of the model's parameters and buffers, the same for all graphs of the model.
        store: collects the ties and freezes.
        terms: collects the MAC counts, or None to count none.

    Returns:
        {node name: labelled value}.
    """
    values: dict[str, NodeValue] = {}
    buffers = captured.program.graph_signature.inputs_to_buffers  # a property that builds its dict each time
    for node in captured.nodes:
        if node.op == "placeholder":
            values[node.name] = _placeholder(node, captured, axes, buffers)
        elif node.op == "output":
            _freeze_outputs(node, values, store)
        else:
            values[node.name] = _call(node, values, store, terms)
    return values


def _placeholder(node: Node, captured: Captured, axes: ParameterAxes, buffers: Mapping[str, str]) -> Value:
    if node.name in captured.states:
        name = captured.states[node.name]
        tensor = _meta_tensor(node)
        buffer = buffers.get(node.name, "")
        program = captured.program  # non-persistent buffers are among its constants
        state = program.state_dict.get(buffer, program.constants.get(buffer))
        constant = _index_constant(state) if isinstance(state, Tensor) else None
        return Value(tuple(tensor.shape), axes.labels[name], "", constant)
    if node.name in captured.constants:
        tensor = captured.constants[node.name]
        note = "a tensor that is neither parameter nor buffer"
        return Value(tuple(tensor.shape), (None,) * tensor.ndim, note, _index_constant(tensor))
    value = node.meta.get("val")
    shape = tuple(value.shape) if isinstance(value, Tensor) else ()
    return Value(shape, (None,) * len(shape), "the model's input")


def _index_constant(tensor: Tensor | None) -> Tensor | None:
    if tensor is None or tensor.is_meta or tensor.is_floating_point() or tensor.is_complex():
        return None
    return tensor


def _meta_tensor(node: Node) -> Tensor:
    value = node.meta["val"]
    if not isinstance(value, Tensor):
        raise TypeError(f"{node.name}: {type(value).__name__} is no tensor")
    return value


def _call(
    node: Node, values: dict[str, NodeValue], store: LabelStore, terms: list[MacTerm] | None
) -> NodeValue:
    arguments = _arguments(node, values)
    if node.target is operator.getitem:
        container, index = arguments["self"], arguments["index"]
        if isinstance(container, list) and isinstance(index, int):
            item: Value = container[index]
            return item
    outputs = node.meta.get("val")
    listed = outputs if isinstance(outputs, tuple | list) else [outputs]
    shapes = [tuple(tensor.shape) for tensor in listed if isinstance(tensor, Tensor)]
    op = OpContext(
        node=node.name,
        layer=layer_of(node),
        operator=operator_name(node),
        arguments=arguments,
        shapes=shapes,
        store=store,
        terms=terms,
        read=frozenset(_position(user) for user in node.users if user.target is operator.getitem),
        dense_macs=partial(_dense_macs, node),
    )
    if op.operator.startswith("_assert"):
        return []  # it checks shapes and dtypes, which tracing has fixed
    rule = _rule(node, op)
    result = op.unsupported(_NO_RULE) if rule is None else rule(op)
    return _fold_constant(node, op, result, single=not isinstance(outputs, tuple | list))


def _position(item: Node) -> int:
    position = item.args[1]
    return position if isinstance(position, int) else 0


def _rule(node: Node, op: OpContext) -> LayerRule | None:
    rule = LAYER_RULES.get(op.operator)
    if rule is not None:
        return rule
    tags = getattr(node.target, "tags", ())
    return elementwise if torch.Tag.pointwise in tags else None


def _dense_macs(node: Node) -> int:
    """Count the MACs of one operator on the meta device. Return 0 if it has no kernel for that device."""
    from torch.utils.flop_counter import FlopCounterMode  # it imports triton

    def without_data(leaf: object) -> object:
        value = leaf.meta.get("val") if isinstance(leaf, Node) else leaf
        if isinstance(value, Tensor):
            return torch.empty(value.shape, dtype=value.dtype, device="meta")
        return value

    if not isinstance(node.target, torch._ops.OpOverload):
        return 0
    args, kwargs = pytree.tree_map(without_data, (list(node.args), dict(node.kwargs)))
    # A device among the arguments (of an operator that makes a tensor) would mix devices, so it is replaced.
    with FlopCounterMode(display=False) as counter, torch.no_grad(), torch.device("meta"):
        try:
            node.target(*args, **{k: "meta" if k == "device" else value for k, value in kwargs.items()})
        except (RuntimeError, NotImplementedError):
            return 0
    return int(counter.get_total_flops()) // 2


def _fold_constant(node: Node, op: OpContext, result: NodeValue, *, single: bool) -> NodeValue:
    """Evaluate an operator on constants only, so that rules see the values of computed indices."""
    outputs = [result] if isinstance(result, Value) else result
    tensors = op.tensors()
    if single and len(outputs) == 1:
        output = outputs[0]
        if tensors and all(value.constant is not None for value in tensors):
            folded = _evaluate(node, op)
            return Value(output.shape, output.labels, output.note, folded)
        return output
    return outputs


def _evaluate(node: Node, op: OpContext) -> Tensor | None:
    def value_of(item: object) -> object:
        if isinstance(item, Value):
            return item.constant
        if isinstance(item, list | tuple):
            return [value_of(part) for part in item]
        return item

    function = node.target
    if not callable(function) or node.is_impure():
        return None
    result = function(**{name: value_of(value) for name, value in op.arguments.items()})
    return _index_constant(result) if isinstance(result, Tensor) else None


def _arguments(node: Node, values: dict[str, NodeValue]) -> dict[str, object]:
    positional = [_labelled(argument, values) for argument in node.args]
    named = {name: _labelled(argument, values) for name, argument in node.kwargs.items()}
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        if node.target is operator.getitem:
            return {"self": positional[0], "index": positional[1]}
        return {**{f"argument{i}": value for i, value in enumerate(positional)}, **named}
    bound: dict[str, object] = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(positional):
            bound[argument.name] = positional[position]
        elif argument.name in named:
            bound[argument.name] = named[argument.name]
        else:
            bound[argument.name] = argument.default_value if argument.has_default_value() else None
    return bound


def _labelled(argument: object, values: dict[str, NodeValue]) -> object:
    """Replace each node in an argument by its value, also inside lists."""
    if isinstance(argument, Node):
        return values[argument.name]
    if isinstance(argument, list | tuple):
        return [_labelled(item, values) for item in argument]
    return argument


def _freeze_outputs(node: Node, values: dict[str, NodeValue], store: LabelStore) -> None:
    def visit(argument: Node) -> Node:
        found = values[argument.name]
        for value in found if isinstance(found, list) else [found]:
            for vector in value.labels:
                store.freeze(vector, OUTPUT)
        return argument

    map_arg(node.args, visit)


def operator_name(node: Node) -> str:
    """Return the operator's name in LAYER_RULES: "conv2d", "mylib::op". The in-place "relu_" gives "relu"."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return getattr(node.target, "__name__", str(node.target))
    name = str(schema.name).removeprefix("aten::")
    return name[:-1] if name.endswith("_") and not name.endswith("__") else name


def layer_of(node: Node) -> str:
    """Return the path of the module that called the operator, or "model" for the root."""
    stack = node.meta.get("nn_module_stack") or {}
    path = next(reversed([str(entry[0]) for entry in stack.values()]), "") if stack else ""
    return path.partition(".parametrizations.")[0] or "model"
