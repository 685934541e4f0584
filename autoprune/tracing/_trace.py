"""Trace a model into channel groups that are known to be narrowable.

All groups are narrowed at once, and the shape of every node is compared with the prediction of the labels. A
group that does not fit is frozen with the reason.

Example:
    prunable = trace(model, torch.zeros(1, 3, 32, 32))
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from autoprune.cost.formula import make_formula
from autoprune.errors import TraceError, a_kind, suggest
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import (
    Captured,
    ExampleInputs,
    capture,
    first_names,
    inputs_of_part,
    normalise_inputs,
    repeat_batch,
)
from autoprune.graph.context import MacTerm
from autoprune.graph.followers import Follower
from autoprune.graph.grouping import make_groups
from autoprune.graph.labels import LabelStore
from autoprune.graph.lineage import Lineage
from autoprune.graph.modules import tie_modules
from autoprune.graph.orientation import output_axis, owner_of
from autoprune.graph.propagate import NodeValue, ParameterAxes, propagate
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.support.events import Counted, Watcher
from autoprune.support.usercode import entry
from autoprune.tracing._block_check import BlockCheck
from autoprune.tracing._blocks import find_blocks
from autoprune.tracing._lineage import lineage_of
from autoprune.tracing._module_numbers import Proposal, proposals
from autoprune.tracing._shape_check import Fault, Misfit, ShapeCheck, meta_inputs

_log = logging.getLogger(__name__)

_STEPS = 4
"""The steps of a trace: two graphs, the groups, and the blocks."""


@entry(TraceError, model=nn.Module, frozen=Iterable, watch=GIVEN_WATCH)
def trace(
    model: nn.Module,
    example_inputs: object,
    *,
    frozen: Sequence[str] = (),
    target: str = "",
    rebuilt_from: tuple[Prunable, Plan] | None = None,
    watch: Watch = True,
) -> Prunable:
    """Trace a model and find which of its channels can be dropped together.

    Args:
        model: the dense model. Its parameters, buffers, mode, hooks and random states are not changed.
        example_inputs: a Tensor, a tuple of inputs, or a dict of keyword inputs, with the batch on axis 0.
            Costs are counted at batch 1 of these sizes.
        frozen: names of modules whose output channels must all be kept.
        target: path of a submodule, such as "backbone", to narrow only this part of the model.
            The whole model runs once on the example inputs to get those of the part. Costs are those of the
            part. Plans, proofs and rebuilt models are those of the whole model.
        rebuilt_from: the traced model and the plan from which `model` was rebuilt. Its groups then have the
            names, the channels and the frozen parts of that model, so that `plan.then` composes both plans.
            The target is that of the earlier trace, and the example inputs are those of its part.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        The channel groups, the graph and the costs of the model.

    Raises:
        PlanError: the plan of `rebuilt_from` does not fit its model.
        TraceError: `torch.export` cannot follow the forward pass, or a name in `frozen` is not a module or is
            a module without parameters.

    Example:
        prunable = autoprune.trace(model, images[:1])
        prunable.cost().macs, [group.name for group in prunable.groups]
    """
    if rebuilt_from is not None:
        target = rebuilt_from[0].target
    elif target:
        example_inputs = inputs_of_part(model, example_inputs, target)
    inputs = normalise_inputs(example_inputs)
    with watching(watch) as show:
        return _trace(model, inputs, frozen, target, rebuilt_from, show)


def _trace(
    model: nn.Module,
    inputs: ExampleInputs,
    frozen: Sequence[str],
    target: str,
    rebuilt_from: tuple[Prunable, Plan] | None,
    watch: Watcher,
) -> Prunable:
    """Trace a model on normalised inputs. The arguments are those of `trace`."""
    watch(Counted("tracing", 0, _STEPS))
    evaluated = capture(model, inputs, training=False, target=target)
    watch(Counted("tracing", 1, _STEPS))
    trained = _capture_training(model, inputs, target)
    watch(Counted("tracing", 2, _STEPS))
    store = LabelStore()
    axes = ParameterAxes.of(model, store)
    tie_modules(model, axes, store)
    terms: list[MacTerm] = []
    values = propagate(evaluated, axes, store, terms)
    if trained is not None:  # ties of layers that run in training alone, without MACs of their own
        propagate(trained, axes, store, None)
    _freeze_named(model, axes, store, frozen)
    lineage = None if rebuilt_from is None else lineage_of(*rebuilt_from, model)
    if lineage is not None:
        lineage.tie(axes, store)
    _freeze_shared(model, axes, store, target)
    # From here on labels are only frozen. Groups and shapes are made from them again after each freeze.
    unused = _unused(model, evaluated, trained)
    draft = _Draft(
        model, inputs, evaluated, axes, store, terms, values, unused, trained, lineage, target=target
    )
    check = ShapeCheck.of(model, trains=trained is not None)
    settled = _settle(draft, check)
    watch(Counted("tracing", 3, _STEPS))
    prunable = _with_blocks(settled, draft, check)
    watch(Counted("tracing", _STEPS, _STEPS))
    return prunable


@dataclass(frozen=True, eq=False)
class _Draft:
    """The results of tracing from which groups are made. Only the store changes, when labels are frozen."""

    model: nn.Module
    inputs: ExampleInputs
    captured: Captured
    axes: ParameterAxes
    store: LabelStore
    terms: list[MacTerm]
    values: Mapping[str, NodeValue]
    unused: frozenset[str]
    trained: Captured | None
    lineage: Lineage | None
    followers: tuple[Follower, ...] = ()
    target: str = ""

    def following(self, proposal: Proposal) -> _Draft:
        """Return a new draft with the proposal's ties and followers added."""
        store = self.store.copy()
        for first, second in proposal.ties:
            store.tie(first, second, "the code of its module takes one width from the other")
        return replace(self, store=store, followers=(*self.followers, *proposal.followers))

    def prunable(self) -> Prunable:
        """Return the groups and costs for the labels as they are tied and frozen now."""
        components = self.store.components()
        grouping = make_groups(
            self.model, self.axes, components, self.terms, self.unused, self.lineage, self.target
        )
        formula = make_formula(self.model, grouping, self.terms, target=self.target)
        return Prunable(
            self.model,
            self.inputs,
            grouping.groups,
            formula,
            grouping,
            self.captured,
            self.values,
            self.followers,
            target=self.target,
        )


def _capture_training(model: nn.Module, inputs: ExampleInputs, target: str) -> Captured | None:
    try:
        return capture(model, repeat_batch(inputs, 2), training=True, target=target)
    except TraceError as error:
        _log.warning("training mode could not be traced, so only the eval graph is used: %s", error)
        return None


def _freeze_named(model: nn.Module, axes: ParameterAxes, store: LabelStore, frozen: Sequence[str]) -> None:
    modules = {name for name, _ in model.named_modules() if name}
    names = first_names(model)
    for name in frozen:
        if name not in modules:
            raise TraceError(
                f"frozen: {name} is not a module of {type(model).__name__}.{suggest(name, modules)}"
            )
        mine = [tensor for tensor in names if tensor.startswith(f"{name}.") and axes.labels[names[tensor]]]
        if not mine:
            raise TraceError(
                f"frozen: {name} is {a_kind(model.get_submodule(name))} without parameters. Name "
                "the layer whose output it reads."
            )
        for tensor in mine:
            vectors = axes.labels[names[tensor]]
            owner = model.get_submodule(owner_of(tensor)[0])
            outputs = output_axis(owner) if len(vectors) > 1 else 0
            store.freeze(vectors[outputs], f"{name}: frozen by the user")


def _freeze_shared(model: nn.Module, axes: ParameterAxes, store: LabelStore, target: str) -> None:
    """Freeze the axes of tensors that a module outside of the target holds too."""
    if not target:
        return
    names = first_names(model)
    inside = {first for name, first in names.items() if name.startswith(f"{target}.")}
    for name, first in names.items():
        if first in inside and not name.startswith(f"{target}."):
            for vector in axes.labels[first]:
                if vector is not None:
                    store.freeze(vector, f"{name}: shares the tensor, outside of {target}")


def _unused(model: nn.Module, *graphs: Captured | None) -> frozenset[str]:
    read = {
        graph.states[node.name]
        for graph in graphs
        if graph is not None
        for node in graph.nodes
        if node.op == "placeholder" and node.name in graph.states and node.users
    }
    return frozenset(name for name, _ in model.named_parameters() if name not in read)


@dataclass(frozen=True, eq=False)
class _Checked:
    """A draft with its groups, and the fault that the shape check found in them, if any."""

    draft: _Draft
    prunable: Prunable
    fault: Fault | None

    @staticmethod
    def of(draft: _Draft, check: ShapeCheck) -> _Checked:
        """Group and check a draft."""
        prunable = draft.prunable()
        return _Checked(draft, prunable, check.fault(prunable))


def _with_blocks(prunable: Prunable, draft: _Draft, check: ShapeCheck) -> Prunable:
    """Return the prunable with the blocks that a plan may drop."""
    layers = frozenset(term.node for term in draft.terms)
    copies = BlockCheck(check.skeleton, meta_inputs(draft.inputs), check.trains, draft.target)
    blocks = find_blocks(prunable, draft.trained, copies, layers)
    if not blocks:
        return prunable
    formula = make_formula(draft.model, prunable.grouping, draft.terms, blocks, draft.target)
    return replace(prunable, formula=formula, blocks=blocks)


def _settle(draft: _Draft, check: ShapeCheck) -> Prunable:
    """Apply proposals or freeze groups until the narrowed model has the shapes that the labels predict."""
    hopeless: set[type[nn.Module]] = set()
    checked = _Checked.of(draft, check)
    while (fault := checked.fault) is not None:
        advanced = _advanced(checked, fault, check, hopeless)
        if advanced is None:
            _freeze(checked.draft, check.misfits(checked.prunable, fault))
            advanced = _Checked.of(checked.draft, check)
        checked = advanced
    return checked.prunable


def _advanced(
    checked: _Checked, fault: Fault, check: ShapeCheck, hopeless: set[type[nn.Module]]
) -> _Checked | None:
    """Return the draft with a proposal with which the check runs further, or None if no proposal helps.

    Proposals are made for the module at fault, then for the modules around it: a wrong number may show only
    in a module that is called with it. A class without a helpful proposal is added to `hopeless` and not
    tried again.
    """
    for path in () if fault.layer is None else _outwards(fault.layer):
        cls = type(checked.draft.model.get_submodule(path))
        if cls not in hopeless:
            found = _best_proposal(checked, fault, check, path)
            if found is not None:
                return found
            hopeless.add(cls)
    return None


def _outwards(path: str) -> Iterator[str]:
    """Iterate over a module's path and the paths of the modules around it. The model itself comes last."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""


def _best_proposal(checked: _Checked, fault: Fault, check: ShapeCheck, path: str) -> _Checked | None:
    """Return the draft with the best proposal for the class of the module at `path`.

    That is the first proposal with which the check passes or gets beyond the class, otherwise the one with
    which it runs furthest. The result is None if no proposal brings the check further.
    """
    best, furthest = None, fault.progress
    model = checked.draft.model
    cls = type(model.get_submodule(path))
    for proposal in proposals(checked.prunable, path):
        tried = _Checked.of(checked.draft.following(proposal), check)
        if tried.fault is None:
            return tried
        if tried.fault.progress > furthest:
            best, furthest = tried, tried.fault.progress
            if not _within(model, tried.fault.layer, cls):
                return tried
    return best


def _within(model: nn.Module, layer: str | None, cls: type[nn.Module]) -> bool:
    """Return whether a layer is a module of class `cls` or lies in one."""
    return layer is not None and any(type(model.get_submodule(p)) is cls for p in _outwards(layer))


def _freeze(draft: _Draft, misfits: Sequence[Misfit]) -> None:
    """Record in the draft's store that groups are frozen, or that they cross a normalisation."""
    for misfit in misfits:
        note = draft.store.cross if misfit.crosses else draft.store.freeze
        for member in misfit.group.members:
            vector = draft.axes.labels[member.parameter][member.axis]
            if vector is not None:
                note(vector[member.index.ravel()], misfit.reason)
