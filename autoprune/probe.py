"""Own the check of shapes: a model with every group narrowed must have the shapes that the labels predict.

After grouping, before groups are offered: `tracing` freezes the groups found at fault here and asks again. A
narrowed copy is run on the meta device (in train mode too), then traced, and compared node by node with the
dense graph: shapes, operators, and the numbers among their arguments.

    for misfit in find_misfits(prunable, trains=True): ...
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import AutopruneError, TraceError
from autoprune.graph import ChannelGroup, Plan, Prunable
from autoprune.graph.capture import Captured, ExampleInputs, call, capture, repeat_batch, unchanged
from autoprune.graph.context import Value
from autoprune.graph.propagate import NodeValue, layer_of, operator_name
from autoprune.rebuild import clone_structure, keep_positions, narrow

_FAULTS_OF_WIDTH = (
    AutopruneError,
    RuntimeError,
    ValueError,
    IndexError,
    AssertionError,
    TypeError,
    ZeroDivisionError,
)
"""What a model raises that cannot be narrowed; anything else is a fault of the code and stays one."""


@dataclass(frozen=True, eq=False)
class Misfit:
    """A group that must be frozen, or (where `crosses`) one whose width the function itself uses.

    Attributes:
        group: the group.
        reason: the layer, the operator and what went wrong.
        crosses: whether the group may be narrowed all the same, changing the function by design.
    """

    group: ChannelGroup
    reason: str
    crosses: bool = False


@dataclass(frozen=True, eq=False)
class _Skeleton:
    """A model whose tensors have no data, and whether it can run in train mode."""

    model: nn.Module
    trains: bool


def find_misfits(prunable: Prunable, *, trains: bool) -> list[Misfit]:
    """Narrow all groups at once and compare what the model then does with what the labels predict.

    Args:
        prunable: the traced model with the groups as they are tied and frozen so far.
        trains: whether the dense model runs in train mode.

    Returns:
        The groups at fault; none where everything fits.
    """
    skeleton = _Skeleton(_on_meta(prunable.model), trains)
    plan = _probe_plan(prunable, prunable.searchable)
    if not plan:
        return []
    error = _run_error(skeleton, prunable, plan)
    if error is not None:
        return [
            Misfit(group, f"the narrowed model fails: {error}")
            for group in _culprits(skeleton, prunable, list(prunable.searchable))
        ]
    return _differences(prunable, plan)


def _probe_plan(prunable: Prunable, groups: Sequence[ChannelGroup]) -> Plan:
    """Keep a quarter to three quarters of each group: equal halves would hide a cut by width."""
    keep = {}
    for group in groups:
        place = prunable.position[group.name]
        rng = np.random.default_rng([place, group.width])
        # Multiples of the golden ratio: neighbours get shares that lie far apart.
        share = 0.25 + 0.5 * ((place + 1) * 0.618034 % 1)
        keep[group.name] = rng.permutation(group.width)[: max(1, round(share * group.width))]
    return Plan(keep)


def _on_meta(model: nn.Module) -> nn.Module:
    """Return a copy of the model whose tensors have no data."""
    memo: dict[int, object] = {id(t): _meta(t) for t in [*model.parameters(), *model.buffers()]}
    return clone_structure(model, memo)


def _meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def _meta_inputs(inputs: ExampleInputs) -> ExampleInputs:
    moved: ExampleInputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)
    return moved


def _run_error(skeleton: _Skeleton, prunable: Prunable, plan: Plan) -> str | None:
    """Return why a narrowed model cannot run, or None; in train mode too where the dense one can."""
    # The device: a forward pass that makes tensors without naming one would mix it with meta.
    with torch.no_grad(), torch.device("meta"), unchanged(skeleton.model):
        try:
            small = narrow(skeleton.model, keep_positions(prunable, plan))
            for module in small.modules():
                module.training = False
            call(small, _meta_inputs(prunable.example_inputs))
            if skeleton.trains:
                for module in small.modules():
                    module.training = True
                call(small, repeat_batch(_meta_inputs(prunable.example_inputs), 2))
        except _FAULTS_OF_WIDTH as error:
            return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return None


def _culprits(skeleton: _Skeleton, prunable: Prunable, groups: list[ChannelGroup]) -> list[ChannelGroup]:
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
    skeleton: _Skeleton, prunable: Prunable, fixed: list[ChannelGroup], groups: list[ChannelGroup]
) -> list[ChannelGroup]:
    """Return those of `groups` that fail together with `fixed`, by bisection."""
    if len(groups) == 1:
        return groups
    half = len(groups) // 2
    for part in (groups[:half], groups[half:]):
        if _run_error(skeleton, prunable, _probe_plan(prunable, [*fixed, *part])) is not None:
            return _culprits_between(skeleton, prunable, fixed, part)
    return groups


def _differences(prunable: Prunable, plan: Plan) -> list[Misfit]:
    """Compare every node of the narrowed model's graph with the prediction; returns the groups at fault."""
    if not plan:
        return []
    # Not on the meta device: there models that build constants (Swin's masks) trace to other operators.
    small = narrow(prunable.model, keep_positions(prunable, plan))
    actual = capture(small, prunable.example_inputs, training=False)
    dropped = prunable.dropped(plan)
    changed = []
    dense_nodes, small_nodes = _operators(prunable.captured), _operators(actual)
    for dense, narrowed in zip(dense_nodes, small_nodes, strict=False):
        place = f"{layer_of(dense)} ({operator_name(dense)})"
        if dense.target != narrowed.target:
            return _blame(prunable, dense.all_input_nodes, f"{place}: its operators depend on the width")
        expected = _predicted(prunable, prunable.values[dense.name], dropped)
        got = _shapes(narrowed.meta.get("val"))
        if len(got) == len(expected) and got != expected:
            reason = f"{place}: narrowed it gives shape {got[0]} where its labels predict {expected[0]}"
            return _blame(prunable, [dense], reason)
        if _numbers(dense) != _numbers(narrowed):
            changed.append((dense, f"{place}, whose number follows the width"))
    if len(dense_nodes) != len(small_nodes):
        last = dense_nodes[min(len(dense_nodes), len(small_nodes)) - 1]
        return _blame(prunable, [last], f"{layer_of(last)}: how many operators run depends on the width")
    if not changed:
        return []
    full = [g for g in prunable.searchable if g.crosses is None]
    if len(full) < len(plan):
        # Groups that are known to cross may explain it: only what is left without them is at fault.
        return _differences(prunable, _probe_plan(prunable, full))
    return [m for dense, reason in changed for m in _blame(prunable, [dense], reason, crosses=True)]


def _numbers(node: torch.fx.Node) -> list[object]:
    """Return the arguments that are factors or summands, not sizes or axes."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    return [
        given.get(argument.name)
        for argument in schema.arguments
        if str(argument.type).removeprefix("Optional[").rstrip("]") in ("Tensor", "number", "float")
        and not isinstance(given.get(argument.name), torch.fx.Node)
    ]


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


def _blame(
    prunable: Prunable, nodes: Sequence[torch.fx.Node], reason: str, *, crosses: bool = False
) -> list[Misfit]:
    """Return the narrowable groups on the nodes, or on the nearest before them that carries any."""
    queue = list(nodes)
    seen = set(queue)
    for node in queue:
        queue.extend(before for before in node.all_input_nodes if before not in seen)
        seen.update(node.all_input_nodes)
        value = prunable.values.get(node.name, [])
        found: set[int] = set()
        for part in value if isinstance(value, list) else [value]:
            found |= _groups_of(prunable, part)
        free = [prunable.groups[g] for g in sorted(found) if prunable.groups[g].frozen is None]
        offered = [group for group in free if not (crosses and group.crosses)]
        if offered:
            return [Misfit(group, reason, crosses) for group in offered]
    raise TraceError(f"{reason}; no channel group explains it. Freeze the layer with frozen=[...].")


def _groups_of(prunable: Prunable, value: Value) -> set[int]:
    grouping = prunable.grouping
    found: set[int] = set()
    for labels in value.labels:
        if labels is not None:
            found |= set(grouping.group_of[grouping.of_label[labels[labels >= 0]]].tolist())
    return found - {-1}
