"""Find the residual branches of a graph: values that only one sum reads, along a shortcut from their source.

Example:
    for branch in branches(captured): ...
    branch.sum, branch.nodes, branch.source       # the node that adds, those of the branch, and its input
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor
from torch.export.graph_signature import OutputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from autoprune.graph.capture import Captured
from autoprune.graph.propagate import operator_name


@dataclass(frozen=True, eq=False)
class Branch:
    """One branch of one sum.

    Attributes:
        sum: the node that adds the branch to its shortcut.
        operand: position of the branch among its arguments.
        nodes: the nodes that compute the branch alone, with the parameters and buffers that only they read.
        shortcut: the nodes that compute the shortcut alone, such as a projection. Empty if the source itself
            is the shortcut.
        source: the node from which branch and shortcut begin.
    """

    sum: Node
    operand: int
    nodes: frozenset[Node]
    shortcut: frozenset[Node]
    source: Node


class Graph:
    """The nodes of a traced graph that its outputs depend on.

    Buffers that the forward pass writes to are no outputs: they vanish with the module that writes them.
    """

    def __init__(self, captured: Captured) -> None:
        self._captured = captured
        self.place = {node: place for place, node in enumerate(captured.nodes)}
        specs = captured.program.graph_signature.output_specs
        leaves = pytree.tree_leaves(captured.nodes[-1].args)
        named = zip(specs, leaves, strict=True)
        queue = [
            leaf for spec, leaf in named if spec.kind == OutputKind.USER_OUTPUT and isinstance(leaf, Node)
        ]
        self._outputs = frozenset(queue)
        self.live = set(queue)
        for node in queue:
            fresh = [before for before in node.all_input_nodes if before not in self.live]
            queue.extend(fresh)
            self.live.update(fresh)

    @property
    def calls(self) -> list[Node]:
        """The operators, in execution order."""
        return [node for node in self.place if node.op == "call_function" and node in self.live]

    def reads(self, tensors: frozenset[str]) -> set[Node]:
        """Return the nodes that read some parameters and buffers."""
        named = self._captured.states
        states = [node for node in self.place if node.op == "placeholder" and named.get(node.name) in tensors]
        return {reader for state in states for reader in self._readers(state)}

    def branches(self) -> Iterator[Branch]:
        """Iterate over the branches of all sums, either operand of each."""
        for node in self.calls:
            if operator_name(node) != "add":
                continue
            operands = list(node.args[:2])
            if any(not isinstance(each, Node) or _shape(each) != _shape(node) for each in operands):
                continue
            for operand in (0, 1):
                branch = self._branch(node, operand)
                if branch is not None:
                    yield branch

    def _branch(self, node: Node, operand: int) -> Branch | None:
        nodes = self._alone(node, operand)
        sources = self._sources(nodes)
        other = node.args[1 - operand]
        if not isinstance(other, Node) or not nodes or self._writes_outside(nodes, sources):
            return None
        if other in sources:
            return Branch(node, operand, nodes, frozenset(), other)
        shortcut = self._alone(node, 1 - operand)
        common = self._sources(shortcut)
        if len(common) == 1 and common <= sources:
            return Branch(node, operand, nodes, shortcut, next(iter(common)))
        return None

    def _alone(self, node: Node, operand: int) -> frozenset[Node]:
        """Return the nodes that only this operand of a node depends on, none if others read the operand."""
        last = node.args[operand]
        if not isinstance(last, Node) or list(node.args).count(last) > 1 or self._readers(last) != {node}:
            return frozenset()
        found: set[Node] = set()
        # Backwards, so that all readers of a node are judged before the node itself.
        for each in list(self.place)[self.place[last] :: -1]:
            is_inside = each is last or (each in self.live and self._readers(each) <= found)
            if (
                is_inside
                and each not in self._outputs
                and (each.op == "call_function" or self._is_stored(each))
            ):
                found.add(each)
        return frozenset(found)

    def _readers(self, node: Node) -> set[Node]:
        return {user for user in node.users if user in self.live}

    def _sources(self, nodes: frozenset[Node]) -> set[Node]:
        """Return the values that some nodes read, other than parameters, buffers and constants."""
        read = {before for node in nodes for before in node.all_input_nodes}
        return {node for node in read - nodes if not self._is_stored(node)}

    def _is_stored(self, node: Node) -> bool:
        captured = self._captured
        return node.op == "placeholder" and (node.name in captured.states or node.name in captured.constants)

    def _writes_outside(self, nodes: frozenset[Node], sources: set[Node]) -> bool:
        """Return whether an in-place operator of the branch writes into a value that others read."""
        outside = {key for node in sources for key in _storages(node)}
        return any(
            outside.intersection(_storages(node.args[0]))
            for node in nodes
            if getattr(getattr(node.target, "_schema", None), "is_mutable", False)
            and isinstance(node.args[0], Node)
        )


def _shape(node: object) -> tuple[int, ...] | None:
    value = node.meta.get("val") if isinstance(node, Node) else None
    return tuple(value.shape) if isinstance(value, Tensor) else None


def _storages(node: Node) -> set[int]:
    values = pytree.tree_leaves(node.meta.get("val"))
    return {int(v.untyped_storage()._cdata) for v in values if isinstance(v, Tensor)}
