"""Check that a model with every group narrowed has the shapes that the labels predict.

A narrowed copy runs on the meta device, in train mode too, or on its own device if the forward pass reads
values. Then it is traced and compared with the dense graph node by node: the operators, their shapes and the
numbers among their arguments.

Example:
    check = ShapeCheck.of(model, trains=True)
    fault = check.fault(prunable)                  # None if everything fits
    for misfit in check.misfits(prunable, fault): ...
"""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.errors import AutopruneError, TraceError, reason_of
from autoprune.graph import ChannelGroup, Plan, Prunable
from autoprune.graph.capture import Captured, ExampleInputs, call, capture, repeat_batch, unchanged
from autoprune.graph.context import Value
from autoprune.graph.propagate import NodeValue, layer_of, operator_name
from autoprune.graph.slice_starts import misplaced_slice
from autoprune.rebuilding import clone_structure, narrow_to
from autoprune.support.modes import draws_kept

_FAULTS_OF_WIDTH = (
    AutopruneError,
    RuntimeError,
    ValueError,
    IndexError,
    AssertionError,
    TypeError,
    ZeroDivisionError,
)
"""Errors of a forward pass that mean that a group cannot be narrowed. Any other error propagates."""


@dataclass(frozen=True, eq=False)
class Misfit:
    """A group that must be frozen, or one whose width the function itself uses (`crosses`).

    Attributes:
        group: the group.
        reason: the layer, the operator and the difference found.
        crosses: whether the group may still be narrowed, which changes the function by design.
    """

    group: ChannelGroup
    reason: str
    crosses: bool = False


@dataclass(frozen=True, eq=False)
class Fault:
    """The first difference between a narrowed model and the prediction of the labels.

    Attributes:
        layer: path of the module with the difference, "" for the model itself, None if it is in no module.
        progress: how far the check ran, as (stage, operators). Larger is further.
        misfits: the groups at fault, or empty if a run failed and they are not known yet.
        error: why the run failed, or "".
    """

    layer: str | None
    progress: tuple[int, int]
    misfits: tuple[Misfit, ...] = ()
    error: str = ""


@dataclass(frozen=True, eq=False)
class ShapeCheck:
    """The check of one model.

    Attributes:
        skeleton: the model with tensors that have no data.
        trains: whether the dense model runs in train mode.
    """

    skeleton: nn.Module
    trains: bool

    @staticmethod
    def of(model: nn.Module, *, trains: bool) -> ShapeCheck:
        """Make the check of `model`. The model is not changed."""
        memo: dict[int, object] = {id(t): _meta(t) for t in [*model.parameters(), *model.buffers()]}
        return ShapeCheck(clone_structure(model, memo), trains)

    def fault(self, prunable: Prunable) -> Fault | None:
        """Narrow all groups at once and return the first difference, or None if everything fits."""
        plan = _narrow_plan(prunable, prunable.searchable)
        if not plan:
            return None
        return self._run(prunable, plan) or _difference(prunable, plan)

    def misfits(self, prunable: Prunable, fault: Fault) -> list[Misfit]:
        """Return the groups at fault, found by bisection if a run failed."""
        if not fault.error:
            return list(fault.misfits)
        place = "" if fault.layer is None else f"{fault.layer or 'model'}: "
        return [
            Misfit(group, f"{place}the narrowed model fails: {fault.error}")
            for group in self._culprits(prunable, list(prunable.searchable))
        ]

    def _run(self, prunable: Prunable, plan: Plan) -> Fault | None:
        """Run a narrowed model, in train mode too if the dense model can, and return its fault or None."""
        fault = self._run_on(prunable, plan, on_meta=True)
        if fault is None or self._run_on(prunable, Plan({}), on_meta=True) is None:
            return fault
        # The dense model fails on the meta device too, for example because it calls `item`.
        return self._run_on(prunable, plan, on_meta=False)

    def _run_on(self, prunable: Prunable, plan: Plan, *, on_meta: bool) -> Fault | None:
        """Run a narrowed model on the meta device, or on its own device with the example inputs."""
        model = self.skeleton if on_meta else prunable.model
        inputs = meta_inputs(prunable.example_inputs) if on_meta else prunable.example_inputs
        # meta is the default device here, for forward passes that make tensors without naming a device.
        device = torch.device("meta") if on_meta else contextlib.nullcontext()
        with torch.no_grad(), device, unchanged(model), draws_kept(model):
            small = model
            for stage, training in enumerate((False, True) if self.trains else (False,)):
                ran = _Operators()
                try:
                    if not training:
                        small = narrow_to(model, prunable, plan)
                    for module in small.modules():
                        module.training = training
                    # BatchNorm in train mode refuses a single value for each channel, hence a batch of two.
                    with ran:
                        call(small, repeat_batch(inputs, 2) if training else inputs, prunable.target)
                except _FAULTS_OF_WIDTH as error:
                    return Fault(
                        _failing_module(small, error),
                        (stage, ran.count),
                        error=reason_of(error),
                    )
        return None

    def _fails(self, prunable: Prunable, groups: Sequence[ChannelGroup]) -> bool:
        return self._run(prunable, _narrow_plan(prunable, groups)) is not None

    def _culprits(self, prunable: Prunable, groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """Return groups without which the narrowed model runs, by bisection."""
        if len(groups) == 1:
            return groups
        half = len(groups) // 2
        found = []
        for part in (groups[:half], groups[half:]):
            if self._fails(prunable, part):
                found.extend(self._culprits(prunable, part))
        # Each half runs alone, so groups of both halves fail together: groups of the later half are returned.
        return found or self._culprits_between(prunable, groups[:half], groups[half:])

    def _culprits_between(
        self, prunable: Prunable, fixed: list[ChannelGroup], groups: list[ChannelGroup]
    ) -> list[ChannelGroup]:
        """Return those of `groups` that fail together with `fixed`, by bisection."""
        if len(groups) == 1:
            return groups
        half = len(groups) // 2
        for part in (groups[:half], groups[half:]):
            if self._fails(prunable, [*fixed, *part]):
                return self._culprits_between(prunable, fixed, part)
        return groups


class _Operators(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
    """A block that counts the operators that run in it."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch gives no hints
        self.count = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        """Run one operator."""
        self.count += 1
        return func(*args, **(kwargs or {}))


def _failing_module(model: nn.Module, error: BaseException) -> str | None:
    """Return the path of the innermost module of `model` whose method is in the traceback, or None."""
    paths = {id(module): path for path, module in model.named_modules()}
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((paths[id(owner)] for owner in reversed(owners) if id(owner) in paths), None)


def _narrow_plan(prunable: Prunable, groups: Sequence[ChannelGroup]) -> Plan:
    """Keep a quarter to three quarters of each group.

    If every group kept one half, code that splits an axis by a share of its width would pass the check.
    """
    keep = {}
    for group in groups:
        place = prunable.position[group.name]
        rng = np.random.default_rng([place, group.width])
        # Multiples of the golden ratio give neighbouring groups shares that lie far apart.
        share = 0.25 + 0.5 * ((place + 1) * 0.618034 % 1)
        keep[group.name] = rng.permutation(group.width)[: max(1, round(share * group.width))]
    return Plan(keep)


def _meta(tensor: Tensor) -> Tensor:
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def meta_inputs(inputs: ExampleInputs) -> ExampleInputs:
    """Return the inputs on the meta device."""
    moved: ExampleInputs = pytree.tree_map_only(Tensor, lambda tensor: tensor.to("meta"), inputs)
    return moved


def _difference(prunable: Prunable, plan: Plan) -> Fault | None:
    """Compare every node of the narrowed model's graph with the prediction, up to the first difference."""
    if not plan:
        return None
    # On the meta device, models that build constants (Swin's masks) would trace to other operators.
    small = narrow_to(prunable.model, prunable, plan)
    actual = capture(small, prunable.example_inputs, training=False, target=prunable.target)
    dense_nodes, small_nodes = _operators(prunable.captured), _operators(actual)
    dropped = prunable.dropped(plan)
    for count, (dense, narrowed) in enumerate(zip(dense_nodes, small_nodes, strict=False)):
        reason, blamed = _node_difference(prunable, dense, narrowed, dropped)
        if reason:
            misfits = _groups_at_fault(
                prunable, blamed, f"{layer_of(dense)} ({operator_name(dense)}): {reason}"
            )
            return Fault(_path(dense), (_COMPARED, count), tuple(misfits))
        wrong_slices = _misplaced_slices(prunable, dense, narrowed, dropped)
        if wrong_slices:
            return Fault(_path(dense), (_COMPARED, count), tuple(wrong_slices))
    if len(dense_nodes) != len(small_nodes):
        last = dense_nodes[min(len(dense_nodes), len(small_nodes)) - 1]
        misfits = _groups_at_fault(
            prunable, [last], f"{layer_of(last)}: the number of its operators depends on the width"
        )
        return Fault(_path(last), (_COMPARED, len(dense_nodes)), tuple(misfits))
    return _changed_numbers(prunable, plan, list(zip(dense_nodes, small_nodes, strict=True)))


_COMPARED = 2
"""Number of the stage that compares graphs, after the runs in eval mode (0) and in train mode (1)."""


def _path(node: Node) -> str:
    layer = layer_of(node)
    return "" if layer == "model" else layer


def _node_difference(
    prunable: Prunable, dense: Node, narrowed: Node, dropped: NDArray[np.bool_]
) -> tuple[str, Sequence[Node]]:
    """Return how a narrowed node differs from the prediction, and the nodes that carry the group at fault.

    The reason is "" if the node is as predicted.
    """
    if dense.target != narrowed.target:
        return "its operators depend on the width", dense.all_input_nodes
    expected = _predicted(prunable, prunable.values[dense.name], dropped)
    got = _shapes(narrowed.meta.get("val"))
    if len(got) == len(expected) and got != expected:
        wrong = next(i for i, shapes in enumerate(zip(got, expected, strict=True)) if shapes[0] != shapes[1])
        reason = f"when narrowed, got shape {got[wrong]}, expected {expected[wrong]} by its labels"
        return reason, [dense]
    return "", []


def _misplaced_slices(
    prunable: Prunable, dense: Node, narrowed: Node, dropped: NDArray[np.bool_]
) -> list[Misfit]:
    """Return the groups of which a slice begins at other channels than the labels predict."""
    source = prunable.values.get(str(dense.args[0])) if dense.args else None
    if not isinstance(source, Value):
        return []
    kept = partial(prunable.grouping.kept, dropped=dropped)
    vector = misplaced_slice(operator_name(dense), dense, narrowed, source, kept)
    if vector is None:
        return []
    place = f"{layer_of(dense)} ({operator_name(dense)})"
    found = (prunable.groups[g] for g in sorted(prunable.grouping.owners(vector)))
    reason = f"{place}: its slice begins at a fixed position, however many channels before it are kept"
    return [Misfit(group, reason) for group in found if group.frozen is None]


def _changed_numbers(prunable: Prunable, plan: Plan, pairs: Sequence[tuple[Node, Node]]) -> Fault | None:
    """Compare the factors and summands in the code. A group whose width changes one of them crosses."""
    changed = [dense for dense, narrowed in pairs if _numbers(dense) != _numbers(narrowed)]
    if not changed:
        return None
    full = [group for group in prunable.searchable if group.crosses is None]
    if len(full) < len(plan):
        # The groups that are known to cross may explain the change, so the check runs again without them.
        return _difference(prunable, _narrow_plan(prunable, full))
    misfits = [
        misfit
        for dense in changed
        for misfit in _groups_at_fault(
            prunable,
            [dense],
            f"{layer_of(dense)} ({operator_name(dense)}), whose number follows the width",
            crosses=True,
        )
    ]
    return Fault(None, (_COMPARED, len(pairs)), tuple(misfits))


def _numbers(node: Node) -> list[object]:
    """Return a node's arguments that are factors or summands, not sizes or axes."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False)) | node.kwargs
    return [
        given.get(argument.name)
        for argument in schema.arguments
        if str(argument.type).removeprefix("Optional[").rstrip("]") in ("Tensor", "number", "float")
        and not isinstance(given.get(argument.name), Node)
    ]


def _operators(captured: Captured) -> list[Node]:
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


def _groups_at_fault(
    prunable: Prunable, nodes: Sequence[Node], reason: str, *, crosses: bool = False
) -> list[Misfit]:
    """Return the groups on the nodes that can be narrowed, or on the nearest node before them with any."""
    queue = list(nodes)
    seen = set(queue)
    for node in queue:  # it grows meanwhile: a search through the graph, the nearest nodes first
        queue.extend(before for before in node.all_input_nodes if before not in seen)
        seen.update(node.all_input_nodes)
        value = prunable.values.get(node.name, [])
        parts = value if isinstance(value, list) else [value]
        vectors = (labels for part in parts for labels in part.labels if labels is not None)
        found = {owner for vector in vectors for owner in prunable.grouping.owners(vector)}
        free = [prunable.groups[g] for g in sorted(found) if prunable.groups[g].frozen is None]
        offered = [group for group in free if not (crosses and group.crosses)]
        if offered:
            return [Misfit(group, reason, crosses) for group in offered]
    raise TraceError(f"{reason}. No channel group explains it. Freeze the layer with frozen=[...].")
