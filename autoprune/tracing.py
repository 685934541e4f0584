"""Own `autoprune.trace`: from a model to a prunable whose groups have been tried out.

Joins the graph stages, the cost formula and the check of shapes: all groups are narrowed at once, and the
shape of every node is compared with what the labels predict. What does not fit is frozen with the reason.

    prunable = trace(model, torch.zeros(1, 3, 32, 32))
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.cost import make_formula
from autoprune.errors import TraceError, suggest
from autoprune.graph import ChannelGroup, Plan, Prunable
from autoprune.graph.capture import (
    Captured,
    ExampleInputs,
    call,
    capture,
    normalise_inputs,
    repeat_batch,
    unchanged,
)
from autoprune.graph.context import Factor, MacTerm, Value
from autoprune.graph.grouping import make_groups
from autoprune.graph.labels import LabelStore
from autoprune.graph.modules import tie_modules
from autoprune.graph.propagate import NodeValue, ParameterAxes, layer_of, operator_name, propagate
from autoprune.rebuild import clone_structure, keep_positions, narrow

_log = logging.getLogger(__name__)


def trace(model: nn.Module, example_inputs: object, *, frozen: Sequence[str] = ()) -> Prunable:
    """Trace a model and find which of its channels can be dropped together.

    Args:
        model: the dense model; its parameters, buffers, mode, hooks and random states are left as they are.
        example_inputs: a Tensor, a tuple of inputs, or a dict of keyword inputs, with the batch on axis 0.
            Costs are counted at batch 1 of these sizes.
        frozen: names of modules whose output channels must all be kept.

    Raises:
        TraceError: `torch.export` cannot follow the forward pass, or `frozen` names no module.
    """
    inputs = normalise_inputs(example_inputs)
    evaluated = capture(model, inputs, training=False)
    trained = _capture_training(model, inputs)
    store = LabelStore()
    axes = ParameterAxes.of(model, store)
    tie_modules(model, axes, store)
    terms: list[MacTerm] = []
    values = propagate(evaluated, axes, store, terms)
    if trained is not None:
        propagate(trained, axes, store, None)
    _freeze_named(model, axes, store, frozen)
    unused = _unused(model, evaluated, trained)
    draft = _Draft(model, inputs, evaluated, axes, store, terms, values, unused)
    return _freeze_misfits(draft)


@dataclass(frozen=True, eq=False)
class _Draft:
    """All that groups are made from; only the store of frozen labels still grows."""

    model: nn.Module
    inputs: ExampleInputs
    captured: Captured
    axes: ParameterAxes
    store: LabelStore
    terms: list[MacTerm]
    values: Mapping[str, NodeValue]
    unused: frozenset[str]

    def prunable(self) -> Prunable:
        """Group the labels as they are tied and frozen now."""
        grouping = make_groups(self.model, self.axes, self.store.components(), self.terms, self.unused)
        params = (
            [Factor(*axis) for axis in zip(parameter.shape, self.axes.labels[name], strict=True)]
            for name, parameter in self.model.named_parameters()
        )
        formula = make_formula(grouping.groups, grouping, (term.factors for term in self.terms), params)
        return Prunable(
            self.model, self.inputs, grouping.groups, formula, grouping, self.captured, self.values
        )


def _capture_training(model: nn.Module, inputs: ExampleInputs) -> Captured | None:
    try:
        return capture(model, repeat_batch(inputs, 2), training=True)
    except TraceError as error:
        _log.warning("only the eval graph is used: in training mode %s", error)
        return None


def _freeze_named(model: nn.Module, axes: ParameterAxes, store: LabelStore, frozen: Sequence[str]) -> None:
    modules = {name for name, _ in model.named_modules() if name}
    for name in frozen:
        if name not in modules:
            raise TraceError(
                f"frozen: {name} is no module of {type(model).__name__}.{suggest(name, modules)}"
            )
        for parameter, vectors in axes.labels.items():
            if parameter.startswith(f"{name}.") and vectors:
                store.freeze(vectors[0], f"{name}: frozen by the user")


def _unused(model: nn.Module, *graphs: Captured | None) -> frozenset[str]:
    read = {
        graph.states[node.name]
        for graph in graphs
        if graph is not None
        for node in graph.nodes
        if node.op == "placeholder" and node.name in graph.states and node.users
    }
    return frozenset(name for name, _ in model.named_parameters() if name not in read)


# --- the check of shapes ------------------------------------------------------------------------


def _freeze_misfits(draft: _Draft) -> Prunable:
    """Freeze groups until a model with all the others narrowed has the shapes that the labels predict."""
    while True:
        prunable = draft.prunable()
        misfits = _misfits(prunable)
        if not misfits:
            return prunable
        for group, reason in misfits:
            for member in group.members:
                vector = draft.axes.labels[member.parameter][member.axis]
                if vector is not None:
                    draft.store.freeze(vector[member.index.ravel()], reason)


def _misfits(prunable: Prunable) -> list[tuple[ChannelGroup, str]]:
    skeleton = _on_meta(prunable.model)
    plan = _probe_plan(prunable, prunable.searchable)
    if not plan:
        return []
    error = _run_error(skeleton, prunable, plan)
    if error is not None:
        return [
            (group, f"the narrowed model fails: {error}")
            for group in _culprits(skeleton, prunable, list(prunable.searchable))
        ]
    return _wrong_shapes(prunable, plan)


def _probe_plan(prunable: Prunable, groups: Sequence[ChannelGroup]) -> Plan:
    """Keep a random half of each group: uneven halves betray a chunk that is cut unevenly."""
    keep = {}
    for group in groups:
        rng = np.random.default_rng([len(group.name), group.width])
        keep[group.name] = np.sort(rng.permutation(group.width)[: max(1, group.width // 2)])
    return Plan(keep)


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of the model whose tensors have no data."""
    memo: dict[int, object] = {id(t): _meta(t) for t in [*model.parameters(), *model.buffers()]}
    return clone_structure(model, memo)


def _meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _meta_inputs(inputs: ExampleInputs) -> ExampleInputs:
    def move(value: object) -> object:
        return value.to("meta") if isinstance(value, Tensor) else value

    if isinstance(inputs, dict):
        return {name: move(value) for name, value in inputs.items()}
    return tuple(move(value) for value in inputs)


def _run_error(skeleton: nn.Module, prunable: Prunable, plan: Plan) -> str | None:
    """Return why a narrowed model cannot run, or None."""
    with torch.no_grad(), unchanged(skeleton):
        try:
            small = narrow(skeleton, keep_positions(prunable, plan))
            for module in small.modules():
                module.training = False
            call(small, _meta_inputs(prunable.example_inputs))
        except Exception as error:
            return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None


def _culprits(skeleton: nn.Module, prunable: Prunable, groups: list[ChannelGroup]) -> list[ChannelGroup]:
    """Return groups without which the narrowed model runs, by bisection."""
    if len(groups) == 1:
        return groups
    half = len(groups) // 2
    found = []
    for part in (groups[:half], groups[half:]):
        if _run_error(skeleton, prunable, _probe_plan(prunable, part)) is not None:
            found.extend(_culprits(skeleton, prunable, part))
    # Each half runs alone: the fault lies between them; the later half gives way.
    return found or _culprits_between(skeleton, prunable, groups[:half], groups[half:])


def _culprits_between(
    skeleton: nn.Module, prunable: Prunable, fixed: list[ChannelGroup], groups: list[ChannelGroup]
) -> list[ChannelGroup]:
    """Return those of `groups` that fail together with `fixed`, by bisection."""
    if len(groups) == 1:
        return groups
    half = len(groups) // 2
    for part in (groups[:half], groups[half:]):
        if _run_error(skeleton, prunable, _probe_plan(prunable, [*fixed, *part])) is not None:
            return _culprits_between(skeleton, prunable, fixed, part)
    return groups


def _wrong_shapes(prunable: Prunable, plan: Plan) -> list[tuple[ChannelGroup, str]]:
    """Compare every node of the narrowed model's graph with the prediction; returns the groups at fault."""
    # Not on the meta device: there models that build constants (Swin's masks) trace to other operators.
    small = narrow(prunable.model, keep_positions(prunable, plan))
    actual = capture(small, prunable.example_inputs, training=False)
    dropped = prunable.dropped(plan)
    for dense, narrowed in zip(_operators(prunable.captured), _operators(actual), strict=False):
        place = f"{layer_of(dense)} ({operator_name(dense)})"
        if dense.target != narrowed.target:
            return _blame(prunable, dense.all_input_nodes, f"{place}: its operators depend on the width")
        expected = _predicted(prunable, prunable.values[dense.name], dropped)
        got = _shapes(narrowed.meta.get("val"))
        if len(got) == len(expected) and got != expected:
            reason = f"{place}: narrowed it gives shape {got[0]} where its labels predict {expected[0]}"
            return _blame(prunable, [dense, *dense.all_input_nodes], reason)
    return []


def _operators(captured: Captured) -> list[torch.fx.Node]:
    return [node for node in captured.nodes if node.op == "call_function"]


def _predicted(prunable: Prunable, value: NodeValue, dropped: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    shapes = []
    for part in value if isinstance(value, list) else [value]:
        shapes.append(
            tuple(
                size if labels is None else int(prunable.grouping.kept(labels, dropped).sum())
                for size, labels in zip(part.shape, part.labels, strict=True)
            )
        )
    return shapes


def _shapes(outputs: object) -> list[tuple[int, ...]]:
    tensors = outputs if isinstance(outputs, tuple | list) else [outputs]
    return [tuple(tensor.shape) for tensor in tensors if isinstance(tensor, Tensor)]


def _blame(prunable: Prunable, nodes: Sequence[torch.fx.Node], reason: str) -> list[tuple[ChannelGroup, str]]:
    """Return the narrowable groups whose channels the first node that has any carries."""
    for node in nodes:
        value = prunable.values.get(node.name, [])
        found: set[int] = set()
        for part in value if isinstance(value, list) else [value]:
            found |= _groups_of(prunable, part)
        offered = [prunable.groups[g] for g in sorted(found) if prunable.groups[g].frozen is None]
        if offered:
            return [(group, reason) for group in offered]
    raise TraceError(f"{reason}; no channel group explains it. Freeze the layer with frozen=[...].")


def _groups_of(prunable: Prunable, value: Value) -> set[int]:
    grouping = prunable.grouping
    found: set[int] = set()
    for labels in value.labels:
        if labels is not None:
            found |= set(grouping.group_of[grouping.of_label[labels[labels >= 0]]].tolist())
    return found - {-1}
