"""Find channel groups of the same topology: groups whose layers are of the same kinds and joined alike.

Names, widths, kernel sizes and strides do not count, nor do operators that pass one tensor on, such as
activations and poolings. So the first convolutions of all blocks of a ResNet have one topology.

Example:
    topologies(prunable)     # {"conv1": 0, "layer1.0.conv1": 1, "layer1.1.conv1": 1, ...}
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field

from torch.fx import Node

from autoprune.graph.propagate import NodeValue, operator_name
from autoprune.graph.prunable import Prunable

Vertex = tuple[int, str]
"""A layer or a joint of one group: the position of the group, and the name of the node."""

Axes = tuple[int, ...]


def topologies(prunable: Prunable) -> dict[str, int]:
    """Number the topologies of the groups, in model order.

    Two groups have the same number if colour refinement does not distinguish their graphs in eval mode.

    Reference: Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024, section 3.2, for the idea. The
        refinement is that of Weisfeiler and Leman, 1968.
    """
    graph = _graph_of(prunable)
    colours = _refined(graph)
    listed: dict[int, list[int]] = {place: [] for place in range(len(prunable.groups))}
    for (place, _), colour in colours.items():
        listed[place].append(colour)
    numbers: dict[tuple[int, ...], int] = {}
    return {
        group.name: numbers.setdefault(tuple(sorted(listed[place])), len(numbers))
        for place, group in enumerate(prunable.groups)
    }


@dataclass
class _Graph:
    """The graphs of all groups: the kind of each vertex, and the vertices on both ends of each edge."""

    kinds: dict[Vertex, Hashable] = field(default_factory=dict)
    before: dict[Vertex, list[Vertex]] = field(default_factory=lambda: defaultdict(list))
    after: dict[Vertex, list[Vertex]] = field(default_factory=lambda: defaultdict(list))


def _graph_of(prunable: Prunable) -> _Graph:
    """Return the layers of each group, and the operators that join several of its tensors."""
    graph, states = _Graph(), prunable.captured.states
    carried = {name: _axes(prunable, value) for name, value in prunable.values.items()}
    origin: dict[Vertex, Vertex] = {}
    for node in prunable.captured.nodes:
        if node.op != "call_function":
            continue
        inputs = [each for each in node.all_input_nodes if each.name in carried]
        for place in sorted({place for each in inputs for place in carried[each.name]}):
            axes = [
                carried[each.name][place]
                for each in inputs
                if each.name in states and place in carried[each.name]
            ]
            vertex = (place, node.name)
            sources = list(_sources(place, inputs, origin))
            # An operator such as a ReLU is no vertex, because it joins no tensors. Its source stands for it.
            if not axes and len(sources) == 1:
                origin[vertex] = sources[0]
                continue
            origin[vertex] = vertex
            graph.kinds[vertex] = (operator_name(node), tuple(sorted(axes)), carried[node.name].get(place))
            for source in sources:
                graph.before[vertex].append(source)
                graph.after[source].append(vertex)
    return graph


def _sources(place: int, inputs: list[Node], origin: Mapping[Vertex, Vertex]) -> Iterator[Vertex]:
    """Iterate over the vertices of a group that an operator reads."""
    return (origin[place, each.name] for each in inputs if (place, each.name) in origin)


def _axes(prunable: Prunable, value: NodeValue) -> dict[int, Axes]:
    """Return {position of a group: the axes of a value that its channels lie on}."""
    found: dict[int, set[int]] = defaultdict(set)
    for each in value if isinstance(value, list) else [value]:
        for axis, labels in enumerate(each.labels):
            for place in prunable.grouping.owners(labels) if labels is not None else ():
                found[place].add(axis)
    return {place: tuple(sorted(axes)) for place, axes in found.items()}


def _refined(graph: _Graph) -> dict[Vertex, int]:
    """Colour the vertices by their kind and their neighbours' colours until no colour splits any more."""
    colours = _numbered(graph.kinds)
    while True:
        seen = {
            vertex: (
                colour,
                tuple(sorted(colours[each] for each in graph.before[vertex])),
                tuple(sorted(colours[each] for each in graph.after[vertex])),
            )
            for vertex, colour in colours.items()
        }
        refined = _numbered(seen)
        if len(set(refined.values())) == len(set(colours.values())):
            return refined
        colours = refined


def _numbered(kinds: Mapping[Vertex, Hashable]) -> dict[Vertex, int]:
    numbers: dict[Hashable, int] = {}
    return {vertex: numbers.setdefault(kind, len(numbers)) for vertex, kind in kinds.items()}
