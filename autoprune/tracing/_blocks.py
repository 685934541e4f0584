"""Find the residual blocks of a traced model that a plan may drop.

A block is one branch, or several that call the same modules. All of its layers must lie in modules that no
other part of the model calls: these modules are replaced, and the model's own code runs on. Each block is
dropped in a copy on the meta device, in eval and in train mode, before it is offered.

Example:
    blocks = find_blocks(prunable, trained, check, layers)        # tuple[Block, ...]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate

import numpy as np
from torch import nn
from torch.fx import Node

from autoprune.graph import Prunable
from autoprune.graph.blocks import SUFFIX, Block, Gives, StandIn
from autoprune.graph.capture import Captured, first_names, named_tensors
from autoprune.graph.context import Value
from autoprune.graph.propagate import operator_name
from autoprune.graph.rules.layout import LAYOUT_RULES
from autoprune.tracing._block_check import BlockCheck
from autoprune.tracing._branches import Branch, Graph

_KEEPING_ZERO = frozenset(
    (
        *LAYOUT_RULES,
        *("dropout", "feature_dropout", "alias", "clone", "contiguous", "detach", "to", "_to_copy", "neg"),
        *("relu", "relu6", "gelu", "silu", "hardswish", "leaky_relu", "elu", "tanh", "getitem", "add", "sub"),
    )
)
"""Operators whose result is zero if all tensors that they read are."""


def find_blocks(
    prunable: Prunable, trained: Captured | None, check: BlockCheck, layers: frozenset[str]
) -> tuple[Block, ...]:
    """Return the blocks of a model, in the order of their sums.

    Args:
        prunable: the traced model.
        trained: its graph in train mode, or None if there is none.
        check: runs copies of the model.
        layers: names of the nodes of the eval graph that cost MACs.
    """
    modules = _Modules(prunable.model)
    graph = Graph(prunable.captured)
    residual = [branch for branch in graph.branches() if _is_residual(prunable, branch, layers)]
    drafts = _drafts(_CalledModules(modules, graph), residual, layers)
    if trained is not None and drafts:
        other = Graph(trained)
        trains = _drafts(_CalledModules(modules, other), list(other.branches()), frozenset())
        drafts = [both for draft in drafts for both in [draft.joined(trains)] if both is not None]
    names = _names(modules, drafts)
    tried = [[draft.stand_ins(modules, tier) for tier in _tiers(prunable, draft)] for draft in drafts]
    offered = check.offered(tried)
    return tuple(
        _block(prunable, modules, draft, name, stand_ins)
        for draft, name, stand_ins in zip(drafts, names, offered, strict=True)
        if stand_ins is not None
    )


class _Modules:
    """The modules of a model. A module with several paths is one module, and has its first path here."""

    def __init__(self, model: nn.Module) -> None:
        self.paths: dict[nn.Module, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self.paths.setdefault(module, []).append(path)
        self.at = {path: module for module, paths in self.paths.items() for path in paths}
        self.first = first_names(model)

    @cached_property
    def lending(self) -> set[nn.Module]:
        """The modules with layers inside that have another path outside, where they would stay."""
        found: set[nn.Module] = set()
        for module, paths in self.paths.items():
            if len(paths) > 1 and next(named_tensors(module), None) is not None:
                around = [{self.at[outer] for outer in _outers(path)} for path in paths]
                found |= around[0].union(*around) - around[0].intersection(*around)
        return found

    def hold_alone(self, tops: Iterable[nn.Module]) -> bool:
        """Return whether all paths of the layers in some modules lie in these modules."""
        inner = {module for top in tops for module in top.modules()}
        own = {path for top in tops for path in self.paths[top]}
        return all(
            not own.isdisjoint(_outers(path)) or next(named_tensors(module), None) is None
            for module in inner
            for path in self.paths[module]
        )

    def holders(self) -> dict[str, set[nn.Module]]:
        """Return {first name of a tensor: the modules that hold it}."""
        found: dict[str, set[nn.Module]] = {}
        for name, first in self.first.items():
            found.setdefault(first, set()).add(self.at[name.rpartition(".")[0]])
        return found

    def tensors(self, tops: Iterable[nn.Module]) -> frozenset[str] | None:
        """Return the first names of the tensors in some modules, or None if others hold any of them too."""
        inner = {module for top in tops for module in top.modules()}
        found = {name: held for name, held in self.holders().items() if held & inner}
        return frozenset(found) if all(held <= inner for held in found.values()) else None


class _CalledModules:
    """The modules of a model with the nodes of one graph that their calls made.

    Attributes:
        graph: the graph.
        chains: {node: the modules around it, the outermost first}.
        nodes: {module: the nodes inside it}.
    """

    def __init__(self, modules: _Modules, graph: Graph) -> None:
        self.modules = modules
        self.graph = graph
        self.chains: dict[Node, list[nn.Module]] = {}
        self.nodes: dict[nn.Module, set[Node]] = {}
        for node in graph.calls:
            stack = (node.meta.get("nn_module_stack") or {}).values()
            self.chains[node] = [modules.at[str(entry[0])] for entry in stack if entry[0] in modules.at]
            for module in self.chains[node]:
                self.nodes.setdefault(module, set()).add(node)

    def inside(self, module: nn.Module, nodes: frozenset[Node]) -> bool:
        """Return whether no call of a module, or of a module in it, made any other nodes."""
        return all(self.nodes.get(each, set()) <= nodes for each in module.modules())

    def tops(self, nodes: frozenset[Node]) -> dict[nn.Module, Node]:
        """Return the outermost modules that can be replaced, each with its last node.

        Their calls made only nodes among these, and no module outside holds their layers.
        """
        found = self._outermost(nodes, set())
        return found if self.modules.hold_alone(found) else self._outermost(nodes, self.modules.lending)

    def _outermost(self, nodes: frozenset[Node], barred: set[nn.Module]) -> dict[nn.Module, Node]:
        found: dict[nn.Module, Node] = {}
        for node in self.graph.calls:
            if node in nodes:
                own = (each for each in self.chains[node] if each not in barred)
                top = next((each for each in own if self.inside(each, nodes)), None)
                if top is not None:
                    found.pop(top, None)
                    found[top] = node
        return found


@dataclass(frozen=True, eq=False)
class _Draft:
    """A block before its copy has run.

    Attributes:
        branches: of the eval graph, or of the train graph while the two are compared.
        tops: the modules to replace, in the order of their last operators.
        last: those of them that compute the last operator of a branch.
        layered: those of them with operators that cost MACs.
        tensors: names of the parameters and buffers in them.
        tail: whether code outside them works on the result of a branch before it is added.
    """

    called: _CalledModules
    branches: tuple[Branch, ...]
    tops: tuple[nn.Module, ...]
    last: frozenset[nn.Module]
    layered: tuple[nn.Module, ...]
    tensors: frozenset[str]
    tail: bool

    @cached_property
    def nodes(self) -> frozenset[Node]:
        """The nodes of all branches."""
        return frozenset(node for branch in self.branches for node in branch.nodes)

    def joined(self, trains: Sequence[_Draft]) -> _Draft | None:
        """Return the block with the modules that it has in train mode too, such as a stochastic depth.

        Returns:
            None if the train graph has no such block.
        """
        inner = set(self.tops)
        fitting = [
            each
            for each in trains
            if len(each.branches) == len(self.branches)
            and inner <= {module for top in each.tops for module in top.modules()}
            and all(self.called.inside(top, self.nodes) for top in each.tops)
        ]
        if not fitting:
            return None
        fit = min(fitting, key=lambda each: len(each.nodes))
        # A module that only acts in train mode may end the branch. Its stand-in then does so in both modes.
        return replace(self, tops=fit.tops, last=fit.last, tensors=fit.tensors, tail=fit.tail)

    def stand_ins(self, modules: _Modules, tier: Gives) -> tuple[StandIn, ...]:
        """Return the stand-ins. The last one of each branch gives `tier`, or all do if that is "zeros"."""
        return tuple(
            StandIn(path, tier if tier == "zeros" or top in self.last else "zero")
            for top in self.tops
            for path in modules.paths[top]
        )


def _drafts(called: _CalledModules, branches: Sequence[Branch], layers: frozenset[str]) -> list[_Draft]:
    found = [_draft(called, unit, layers) for unit in _units(called, branches)]
    return [draft for draft in found if draft is not None]


def _units(called: _CalledModules, branches: Sequence[Branch]) -> Iterator[tuple[Branch, ...]]:
    """Put branches together that call the same modules with parameters, such as a module that runs twice."""
    unit = list(range(len(branches)))
    for module, nodes in called.nodes.items():
        if next(named_tensors(module), None) is None or next(module.children(), None) is not None:
            continue
        if any(nodes <= branch.nodes for branch in branches):
            continue
        sharing = [place for place, branch in enumerate(branches) if nodes & branch.nodes]
        for place in sharing:
            merged = unit[place]
            unit = [unit[sharing[0]] if each == merged else each for each in unit]
    for number in dict.fromkeys(unit):
        yield tuple(branch for branch, own in zip(branches, unit, strict=True) if own == number)


def _draft(called: _CalledModules, branches: tuple[Branch, ...], layers: frozenset[str]) -> _Draft | None:
    """Return the block of some branches, or None if it cannot be dropped by replacing its modules."""
    nodes = frozenset(node for branch in branches for node in branch.nodes)
    tops = called.tops(nodes)
    in_tops = {node for top in tops for node in called.nodes[top]}
    costly = {node for node in nodes if node.name in layers}
    tensors = called.modules.tensors(tops)
    # A layer outside of the replaced modules would still be computed after the drop.
    if not tops or tensors is None or not costly <= in_tops:
        return None
    if called.graph.reads(tensors) - nodes:  # code outside of the branches shares these weights
        return None
    # The operators after the stand-ins must turn zeros into zeros, so that the sum is the shortcut alone.
    results = [branch.sum.args[branch.operand] for branch in branches]
    if not all(_is_zero(result, in_tops) for result in results):
        return None
    ends = [[top for top in tops if called.nodes[top] & branch.nodes] for branch in branches]
    last = frozenset(each[-1] for each in ends if each)
    layered = tuple(top for top in tops if called.nodes[top] & costly)
    tail = not in_tops.issuperset(results)
    return _Draft(called, branches, tuple(tops), last, layered, tensors, tail)


def _is_zero(value: object, zeros: set[Node]) -> bool:
    """Return whether a value is zero if the results of the replaced modules are."""
    if not isinstance(value, Node) or value in zeros:
        return isinstance(value, Node)
    if value.op != "call_function":
        return False
    read = [_is_zero(each, zeros) for each in value.all_input_nodes]
    name = operator_name(value)
    if name == "mul":
        return any(read)
    if name == "div":
        return _is_zero(value.args[0], zeros)
    return name in _KEEPING_ZERO and bool(read) and all(read)


def _is_residual(prunable: Prunable, branch: Branch, layers: frozenset[str]) -> bool:
    """Return whether a branch has more layers than its shortcut, and changes only the number of channels."""
    deep, flat = (sum(node.name in layers for node in nodes) for nodes in (branch.nodes, branch.shortcut))
    before, after = (prunable.values.get(node.name) for node in (branch.source, branch.sum))
    if deep <= flat or not isinstance(before, Value) or not isinstance(after, Value):
        return False
    if len(before.shape) != len(after.shape):
        return False
    axes = zip(before.shape, after.shape, after.labels, strict=True)
    return all(length == changed for length, changed, labels in axes if labels is None)


def _tiers(prunable: Prunable, draft: _Draft) -> list[Gives]:
    """Return the possible results of the last stand-in, the cheapest first.

    Code that works on the result of a branch needs a tensor. Zeros of the full shape are only possible if the
    sum always has the channels of the source.
    """
    first: Gives = "zero" if draft.tail else "nothing"
    of_label = prunable.grouping.of_label
    for branch in draft.branches:
        before, after = (prunable.values[node.name] for node in (branch.source, branch.sum))
        assert isinstance(before, Value)
        assert isinstance(after, Value)
        for one, other in zip(before.labels, after.labels, strict=True):
            if one is None or other is None:
                if one is not other:
                    return [first]
            elif not np.array_equal(of_label[one], of_label[other]):
                return [first]
    return [first, "zeros"]


def _names(modules: _Modules, drafts: Sequence[_Draft]) -> list[str]:
    """Name each block after the module that holds its layers, or after its first layer if others share it."""
    first = [[modules.paths[top][0] for top in draft.layered] for draft in drafts]
    holders = [_common(paths) for paths in first]
    times = Counter(holders)
    names = [
        holder if holder and times[holder] == 1 else paths[0]
        for holder, paths in zip(holders, first, strict=True)
    ]
    return [f"{name}{SUFFIX}" for name in names]


def _outers(path: str) -> Iterator[str]:
    """Iterate over the paths of a module and of those around it, but for the model."""
    return accumulate(path.split("."), "{}.{}".format)


def _common(paths: Sequence[str]) -> str:
    """Return the path of the innermost module that holds all paths."""
    split = [path.split(".") for path in paths]
    shared = 0
    while all(len(each) > shared for each in split) and len({each[shared] for each in split}) == 1:
        shared += 1
    return ".".join(split[0][:shared])


def _block(
    prunable: Prunable, modules: _Modules, draft: _Draft, name: str, stand_ins: tuple[StandIn, ...]
) -> Block:
    inner = (
        group.name
        for group in prunable.groups
        if all(modules.first[member.parameter] in draft.tensors for member in group.members)
    )
    return Block(
        name,
        stand_ins,
        tuple(inner),
        draft.tensors,
        frozenset(node.name for node in draft.nodes if node.op == "call_function"),
        {branch.sum.name: branch.operand for branch in draft.branches},
    )
