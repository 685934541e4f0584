"""Insert channel selections into a model, in front of the layers that share a tensor.

Example:
    selecting = add_channel_selection(preresnet, torch.zeros(1, 3, 32, 32))
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass

from torch import Tensor, nn
from torch.fx import Node
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from autoprune.errors import TraceError
from autoprune.graph import Prunable
from autoprune.graph.capture import named_tensors
from autoprune.graph.context import Value
from autoprune.graph.labels import FIXED, LabelVector
from autoprune.graph.propagate import LAYER_OPERATORS, layer_of, operator_name
from autoprune.nn._selection import ChannelSelection
from autoprune.support.usercode import entry
from autoprune.tracing import trace

_NAME = "select"
"""Name of the selection among the submodules of the layer that it serves."""


@entry(TraceError, model=nn.Module)
def add_channel_selection(model: nn.Module, example_inputs: object) -> nn.Module:
    """Return a copy of a model in which layers that share a tensor each select channels of their own.

    The copy computes the same as the model. A layer gets a selection if other layers read the channels of its
    input, too. If a BatchNorm before it serves no other part of the model, the selection is placed before
    that BatchNorm. The shared tensor can no longer be narrowed.

    A selection becomes the submodule `select` of the BatchNorm, convolution or linear layer that it serves.
    It runs before that layer. All other names in the model stay.

    Args:
        model: any model that `autoprune.trace` can trace. It is not changed.
        example_inputs: a Tensor, a tuple of inputs, or a dict of keyword inputs, with the batch on axis 0.

    Raises:
        TraceError: the model cannot be traced, or no tensor in it is shared.
    """
    prunable = trace(model, example_inputs, watch=None)
    places = _places(prunable)
    if not places:
        raise TraceError(
            f"add_channel_selection: no two layers of {type(model).__name__} read the same channels, so a "
            "selection would change nothing. Prune the model as it is."
        )
    selecting = copy.deepcopy(model)
    for path, channels in places.items():
        layer = selecting.get_submodule(path)
        device = next((tensor.device for _, tensor in named_tensors(layer)), None)
        layer.add_module(_NAME, ChannelSelection(channels).to(device))
        layer.register_forward_pre_hook(_select)
    return selecting


def _select(layer: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Select channels of a layer's first argument. A function that closes over nothing survives a copy."""
    return (layer.get_submodule(_NAME)(arguments[0]), *arguments[1:])


@dataclass(frozen=True, eq=False)
class _Reader:
    """A layer that reads channels, or a BatchNorm together with the layers behind it.

    Attributes:
        node: the operator that comes first.
        layers: the convolutions and linear layers that read the channels.
    """

    node: Node
    layers: frozenset[Node]


def _places(prunable: Prunable) -> dict[str, int]:
    """Return {path of the layer: channels that it reads} of all selections to insert."""
    # The layers behind a BatchNorm share one selection before it, if its output goes to nothing else.
    graph = _Channels(prunable)
    readers = [reader for node in graph.nodes if (reader := graph.behind_norm(node)) is not None]
    normed = {layer for reader in readers for layer in reader.layers}
    readers += [_Reader(layer, frozenset((layer,))) for layer in graph.read if layer not in normed]
    return {layer_of(each.node): graph.width(each.node) for each in readers if graph.can_select(each)}


class _Channels:
    """The channels that the nodes of a traced graph read and write.

    Attributes:
        nodes: the operators, in execution order.
        read: {operator that multiplies channels by a weight: the channels that it reads}. A depthwise
            convolution carries its channels and is not among them.
    """

    def __init__(self, prunable: Prunable) -> None:
        self._prunable = prunable
        self.nodes = [node for node in prunable.captured.nodes if node.op == "call_function"]
        self._calls = Counter((layer_of(node), operator_name(node)) for node in self.nodes)
        read = {node: self._entering(node) for node in self.nodes if operator_name(node) in LAYER_OPERATORS}
        self.read = {node: found for node, found in read.items() if not found & self._channels(node)}

    def behind_norm(self, norm: Node) -> _Reader | None:
        """Return a BatchNorm with the layers behind it, or None if its output goes anywhere else, too."""
        if operator_name(norm) != "batch_norm":
            return None
        channels, carriers = self._channels(norm), {norm}
        layers: set[Node] = set()
        for node in self.nodes[self.nodes.index(norm) + 1 :]:
            inputs = {before for before in node.all_input_nodes if before.op == "call_function"}
            if not inputs & carriers:
                continue
            carries = bool(channels & self._channels(node))
            if inputs - carriers or not (carries or node in self.read):
                return None
            (carriers if carries else layers).add(node)
        is_returned = any(user.op == "output" for carrier in carriers for user in carrier.users)
        return None if is_returned else _Reader(norm, frozenset(layers))

    def can_select(self, reader: _Reader) -> bool:
        """Return whether other layers read the same channels, and a module can select them for the reader."""
        path, channels = layer_of(reader.node), self._entering(reader.node)
        others = (found for layer, found in self.read.items() if layer not in reader.layers)
        return (
            any(channels & found for found in others)
            and self._axis(reader.node) == 1
            and self._calls[path, operator_name(reader.node)] == 1
            and isinstance(_module(self._prunable.model, path), _SERVED)
        )

    def width(self, node: Node) -> int:
        """Return the number of channels that enter an operator."""
        return self._input(node).shape[self._axis(node)]

    def _input(self, node: Node) -> Value:
        value = self._prunable.values[node.all_input_nodes[0].name]
        assert isinstance(value, Value)  # a BatchNorm, convolution or linear layer reads one tensor
        return value

    def _axis(self, node: Node) -> int:
        """Return the axis of a BatchNorm's channels, or the axis of its input that a layer contracts."""
        if operator_name(node) not in LAYER_OPERATORS:
            return 1
        weight = self._prunable.values[node.all_input_nodes[1].name]
        assert isinstance(weight, Value)
        return len(self._input(node).shape) - max(1, len(weight.shape) - 1)

    def _entering(self, node: Node) -> set[int]:
        return self._components(self._input(node).labels[self._axis(node)])

    def _channels(self, node: Node) -> set[int]:
        value = self._prunable.values[node.name]
        parts = value if isinstance(value, list) else [value]
        return {each for part in parts for vector in part.labels for each in self._components(vector)}

    def _components(self, vector: LabelVector | None) -> set[int]:
        if vector is None:
            return set()
        return set(self._prunable.grouping.of_label[vector[vector != FIXED]].tolist())


_SERVED = (_BatchNorm, _ConvNd, nn.Linear)
"""Classes of the layers that a selection can be a part of."""


def _module(model: nn.Module, path: str) -> nn.Module:
    return model if path == "model" else model.get_submodule(path)
