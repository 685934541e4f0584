"""The layers that compute the channels of each group, and the layer that starts a shortcut.

Example:
    writers(prunable)["layer2.0.conv2"]      # (Writer("layer2.0.conv2.weight", ...), ...)
    shortcuts(prunable)["layer2.0.conv2"]    # ("layer2.0.downsample.0.weight",)
    map_stages(prunable)[(28, 28)]               # ("conv1", "layer1.0.conv1", ...)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from torch import Tensor
from torch.fx import Node

from autoprune.graph.groups import ChannelGroup, Member
from autoprune.graph.orientation import output_axis, owner_of
from autoprune.graph.propagate import LAYER_OPERATORS, operator_name
from autoprune.graph.prunable import Prunable


@dataclass(frozen=True)
class Writer:
    """A convolution or linear layer that computes a group's channels.

    A depthwise convolution that passes the channels of its input on does not count.

    Attributes:
        weight: name of its weight. A weight under a parametrization has several names, one writer for each.
        place: of its operator in the order of execution.
        depth: number of convolutions and linear layers on the longest way from the model's input up to it.
        map_size: the spatial size of its output, empty for a vector.
    """

    weight: str
    place: int
    depth: int
    map_size: tuple[int, ...]


def writers(prunable: Prunable) -> dict[str, tuple[Writer, ...]]:
    """Return {group name: its writers in the order of execution}, with groups in that order too.

    Groups that no convolution or linear layer writes come last.
    """
    found = {group.name: _writers_of(prunable, group) for group in prunable.groups}
    first = {name: layers[0].place if layers else math.inf for name, layers in found.items()}
    return {name: found[name] for name in sorted(found, key=first.__getitem__)}


def map_stages(prunable: Prunable) -> dict[tuple[int, ...], tuple[str, ...]]:
    """Return {map size: searchable groups of that size}, in the order of execution.

    The size of a group is that of its first writer's output at the example input.
    """
    searchable = {group.name for group in prunable.searchable}
    found: dict[tuple[int, ...], list[str]] = {}
    for name, layers in writers(prunable).items():
        if name in searchable and layers:
            found.setdefault(layers[0].map_size, []).append(name)
    return {size: tuple(names) for size, names in found.items()}


def shortcuts(prunable: Prunable) -> dict[str, tuple[str, ...]]:
    """Return {group name: weight of the layer that starts the shortcut} of groups that additions tie.

    Each addition of a residual stream needs at least one layer more on the branch than on the shortcut. So
    the writer with the shortest way from the input starts the shortcut. It is the projection of a stage, or
    the layer before the first block if there is none.
    """
    added = _added(prunable)
    found = {}
    for name, layers in writers(prunable).items():
        least = min((layer.depth for layer in layers), default=0)
        if name in added and any(layer.depth > least for layer in layers):
            found[name] = tuple(layer.weight for layer in layers if layer.depth == least)
    return found


def _writers_of(prunable: Prunable, group: ChannelGroup) -> tuple[Writer, ...]:
    layers = _layers(prunable)
    axes = {(member.parameter, member.axis) for member in group.members}
    found = []
    for member in group.members:
        for node, writer in layers.get(member.parameter, ()):
            if _is_output(prunable, member) and not _passes_on(prunable, group, node, member, axes):
                found.append(writer)
    return tuple(sorted(found, key=lambda each: each.place))


def _is_output(prunable: Prunable, member: Member) -> bool:
    return member.axis == output_axis(prunable.model.get_submodule(owner_of(member.parameter)[0]))


def _passes_on(
    prunable: Prunable, group: ChannelGroup, node: Node, member: Member, axes: set[tuple[str, int]]
) -> bool:
    """Return whether a layer reads the group's channels one by one, as a depthwise convolution does."""
    if (member.parameter, 1 - member.axis) in axes:
        return False
    return prunable.position[group.name] in _groups_on(prunable, node.all_input_nodes[0])


def _groups_on(prunable: Prunable, node: Node) -> set[int]:
    """Return the positions of the groups whose channels lie on an axis of a node's output."""
    value = prunable.values[node.name]
    vectors = [] if isinstance(value, list) else [each for each in value.labels if each is not None]
    return set().union(*(prunable.grouping.owners(vector) for vector in vectors))


@lru_cache(maxsize=8)
def _layers(prunable: Prunable) -> dict[str, list[tuple[Node, Writer]]]:
    """Return {parameter: the layers whose weight it is, or is computed from it}."""
    states = prunable.captured.states
    depth: dict[Node, int] = {}
    behind: dict[Node, frozenset[str]] = {}
    found: dict[str, list[tuple[Node, Writer]]] = {}
    for place, node in enumerate(prunable.captured.nodes):
        inputs = node.all_input_nodes
        depth[node] = max((depth[each] for each in inputs), default=0)
        behind[node] = frozenset().union(*(behind[each] for each in inputs))
        if node.op == "placeholder" and node.name in states:
            behind[node] = frozenset([states[node.name]])
        if node.op != "call_function" or operator_name(node) not in LAYER_OPERATORS:
            continue
        weight, output = node.args[1], node.meta["val"]
        if isinstance(weight, Node) and isinstance(output, Tensor):
            depth[node] += 1
            size = output.shape[1:-1] if operator_name(node) == "linear" else output.shape[2:]
            for name in behind[weight]:
                writer = Writer(name, place, depth[node], tuple(int(side) for side in size))
                found.setdefault(name, []).append((node, writer))
        behind[node] = frozenset()  # its output is no weight that a parametrization computes
    return found


def _added(prunable: Prunable) -> set[str]:
    """Return the groups on the outputs of additions of two tensors that are computed from the input."""
    found: set[int] = set()
    for node in prunable.captured.nodes:
        if node.op != "call_function" or operator_name(node) != "add":
            continue
        if [each.op for each in node.all_input_nodes] == ["call_function"] * 2:
            found |= _groups_on(prunable, node)
    return {prunable.groups[position].name for position in found}
