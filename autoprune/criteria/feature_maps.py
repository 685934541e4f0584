"""The feature maps of channel groups: the tensors that hold a group's channels while a traced model runs.

The traced graph gives these tensors, so no layer is known by its name. Images run one at a time.

Example:
    maps = FeatureMaps.of(given, "activation", images=64)
    means = maps.means(lambda rows: rows.flatten(1).abs().mean(dim=1))    # {group name: float64 [width]}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from autoprune.criteria._base import CriterionInput
from autoprune.errors import DataError, PlanError
from autoprune.graph import ChannelGroup, Prunable
from autoprune.graph.capture import (
    ExampleInputs,
    arguments_of,
    inputs_of_part,
    named_tensors,
    unchanged,
)
from autoprune.graph.context import Value
from autoprune.graph.propagate import LAYER_OPERATORS, operator_name
from autoprune.support.structures import arguments, call_on, moved, tensors_in
from autoprune.support.usercode import guarded

_ACTIVATIONS = frozenset(
    (
        *("relu", "relu6", "hardtanh", "leaky_relu", "prelu", "rrelu", "threshold", "clamp", "clamp_min"),
        *("elu", "selu", "celu", "gelu", "silu", "mish", "hardswish", "softplus"),
    )
)
"""Operators whose outputs are feature maps. Sigmoids are not among them: most of them make gates."""

_NORMS = frozenset(("batch_norm", "instance_norm", "group_norm", "layer_norm", "rms_norm"))

Measure = Callable[[Tensor], Tensor]
"""From the maps [width, ...] of one image at one place to a row [width], or several rows [k, width]."""


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor of the graph that holds all channels of a group, each equally often.

    Attributes:
        group: name of the group.
        node: name of the tensor.
        axis: the axis along which the channels lie.
        index: int64 [width, m], the positions of each channel along it.
    """

    group: str
    node: str
    axis: int
    index: Tensor

    def maps(self, tensor: Tensor) -> Tensor:
        """Return the maps of one image, float64 [width, ...]. Axes of size 1 are removed, but one remains."""
        index = self.index.to(tensor.device)
        rows = tensor.index_select(self.axis, index.flatten()).movedim(self.axis, 0)
        sizes = [size for size in (index.shape[1], *rows.shape[1:]) if size != 1]
        return rows.reshape(len(index), *(sizes or [1])).double()

    def scaled(self, tensor: Tensor, gates: Tensor) -> Tensor:
        """Return the tensor with each channel multiplied by its gate, [width]."""
        factors = torch.ones(tensor.shape[self.axis], dtype=tensor.dtype, device=tensor.device)
        spread = gates.to(tensor.dtype)[:, None].expand(self.index.shape).flatten()
        factors = factors.index_put((self.index.flatten().to(tensor.device),), spread)
        return tensor * factors.view(-1, *[1] * (tensor.ndim - 1 - self.axis))


@dataclass(frozen=True, eq=False)
class Sample:
    """One image of a batch, at batch 1.

    Attributes:
        inputs: the inputs of the traced model, or of its traced part.
        whole: the inputs of the whole model, which are the same if it is traced as a whole.
        rest: the rest of the batch, such as (targets,).
    """

    inputs: ExampleInputs
    whole: Any
    rest: Any


@dataclass(frozen=True, eq=False)
class FeatureMaps:
    """The places of the groups' maps, and the images to run.

    Attributes:
        name: of the criterion, for messages.
        prunable: the traced model.
        places: {group name: its places}, without the groups that have none.
        samples: the first images of the data.
    """

    name: str
    prunable: Prunable
    places: Mapping[str, tuple[Place, ...]]
    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, given: CriterionInput, name: str, images: int) -> FeatureMaps:
        """Find the places and take the images.

        Raises:
            PlanError: there is no data, or the model is not traced.
            DataError: the data holds no image, or one of another size than the model was traced at.
        """
        data, prunable = given.images(name), given.prunable
        if prunable is None:
            raise PlanError(
                f'criterion "{name}": needs the graph of the model. Pass the result of autoprune.trace.'
            )
        samples: list[Sample] = []
        for sample in _samples(data, prunable, name):
            samples.append(sample)
            if len(samples) == images:
                break
        if not samples:
            raise DataError(f'criterion "{name}": the data gave no images. Give a loader that is not empty.')
        return cls(name, prunable, places_of(prunable, given.groups), tuple(samples))

    def means(self, measure: Measure) -> dict[str, Tensor]:
        """Average a measure over images and places: {group name: float64 [width], or [k, width]}."""
        totals: dict[str, Tensor] = {}

        def add(place: Place, maps: Tensor) -> None:
            share = measure(maps) / (len(self.samples) * len(self.places[place.group]))
            totals[place.group] = totals[place.group] + share if place.group in totals else share

        self.visit(add)
        return totals

    def visit(self, seen: Callable[[Place, Tensor], None]) -> None:
        """Call `seen` with each place and the maps of each image there.

        Raises:
            DataError: the model fails on an image.
        """

        def show(place: Place, tensor: Tensor) -> Tensor:
            seen(place, place.maps(tensor))
            return tensor

        where = f'criterion "{self.name}": the model failed on an image'
        for sample in self.samples:
            with guarded(where, DataError, memory_passes=True):
                self._run(sample.inputs, show)

    def run(self, sample: Sample, seen: Callable[[Place, Tensor], Tensor]) -> Any:
        """Run the whole model on one image and return its output.

        Args:
            sample: the image.
            seen: called with each place and its tensor. The run continues with the tensor that it returns.
        """
        model = self.prunable.model
        part = model.get_submodule(self.prunable.target)
        if part is model:
            return self._run(sample.inputs, seen)

        forward = part.forward

        def replay(*given: Any, **named: Any) -> Any:
            return self._run(arguments_of(forward, given, named), seen)

        with unchanged(model):
            part.__dict__["forward"] = replay
            return call_on(model, moved(sample.whole, _device_of(model)))

    def _run(self, inputs: ExampleInputs, seen: Callable[[Place, Tensor], Tensor]) -> Any:
        """Run the traced graph on one image and return its output."""

        def show(place: Place, tensor: Tensor) -> Tensor:
            if not bool(tensor.isfinite().all()):
                raise DataError(
                    f'criterion "{self.name}": the feature maps of group "{place.group}" are not finite. The '
                    "weights or the data hold NaN or infinity."
                )
            return seen(place, tensor)

        return _Run(self.prunable, self.places, show).replay(inputs)


class _Run(Interpreter):
    """One run of the dense graph, in eval mode, that calls `seen` with the tensors at some places."""

    def __init__(
        self,
        prunable: Prunable,
        places: Mapping[str, tuple[Place, ...]],
        seen: Callable[[Place, Tensor], Tensor],
    ) -> None:
        super().__init__(prunable.captured.program.graph_module, garbage_collect_values=True)
        self.extra_traceback = False  # it would make several lines of an error's message
        self._captured = prunable.captured
        self._states = {name: tensor.detach() for name, tensor in named_tensors(prunable.model)}
        self._buffers = {name for name, _ in prunable.model.named_buffers()}
        self._device = _device_of(prunable.model)
        self._places: dict[str, list[Place]] = {}
        for place in (place for listed in places.values() for place in listed):
            self._places.setdefault(place.node, []).append(place)
        self._seen = seen

    def replay(self, inputs: ExampleInputs) -> Any:
        """Run the graph, and return the model's output."""
        moved = pytree.tree_map_only(Tensor, lambda tensor: tensor.to(self._device), inputs)
        arguments = self._captured.arguments(moved, self._state, lambda constant: constant.to(self._device))
        leaves = self._captured.outputs(self.run(*arguments))
        return pytree.tree_unflatten(leaves, self._captured.program.call_spec.out_spec)

    def _state(self, name: str) -> Tensor:
        # A forward pass may write into a buffer.
        return self._states[name].clone() if name in self._buffers else self._states[name]

    def run_node(self, n: Node) -> Any:
        """Run one operator, and show its result at the places in it."""
        if n.op == "call_function" and operator_name(n).startswith("_assert"):
            return None  # checks of the device on which the model was traced, which may be another one
        result = super().run_node(n)
        for place in self._places.get(n.name, ()):
            result = self._seen(place, result)
        return result

    def call_function(self, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run on the device that the model is on now."""
        kwargs = {name: self._device if name == "device" else value for name, value in kwargs.items()}
        return super().call_function(target, args, kwargs)


def places_of(prunable: Prunable, groups: Sequence[ChannelGroup]) -> dict[str, tuple[Place, ...]]:
    """Find the tensors that are the feature maps of groups, {group name: places}.

    These are the outputs of activations, and sums that no activation reads (a residual stream without one). A
    group without such tensors gets the outputs of its layers, after the normalisation if one follows. A group
    that no layer writes gets the first tensor that holds it. A group that no tensor holds is left out.
    """
    nodes = _computed(prunable)
    activated = [node for node in nodes if operator_name(node) in _ACTIVATIONS]
    sums = [
        node
        for node in nodes
        if operator_name(node) == "add" and _adds(node, nodes) and not _enters(node, _ACTIVATIONS)
    ]
    layers = [
        node
        for node in nodes
        if operator_name(node) in LAYER_OPERATORS | _NORMS and not _enters(node, _NORMS)
    ]
    result: dict[str, tuple[Place, ...]] = {}
    for tier in (activated + sums, layers):
        result |= _held(prunable, tier, {group.name for group in groups} - result.keys())
    others = _held(prunable, nodes, {group.name for group in groups} - result.keys())
    return result | {name: places[:1] for name, places in others.items()}


def _held(prunable: Prunable, nodes: Iterable[Node], names: Set[str]) -> dict[str, tuple[Place, ...]]:
    """Return the places of the named groups in these tensors."""
    found: dict[str, list[Place]] = {}
    for node in nodes:
        for place in _places_in(prunable, node):
            if place.group in names:
                found.setdefault(place.group, []).append(place)
    return {name: tuple(places) for name, places in found.items()}


def _computed(prunable: Prunable) -> dict[Node, None]:
    """Return the operators that depend on the model's inputs, in order."""
    captured = prunable.captured
    fixed = {*captured.states, *captured.constants}
    moving: dict[Node, None] = {}
    for node in captured.nodes:
        is_input = node.op == "placeholder" and node.name not in fixed
        if is_input or (node.op == "call_function" and any(each in moving for each in node.all_input_nodes)):
            moving[node] = None
    return {node: None for node in moving if node.op == "call_function"}


def _adds(node: Node, computed: Mapping[Node, None]) -> bool:
    """Return whether a sum adds two computed tensors, rather than a parameter to one."""
    return sum(each in computed for each in node.all_input_nodes) > 1


def _enters(node: Node, operators: frozenset[str]) -> bool:
    return any(operator_name(user) in operators for user in node.users)


def _places_in(prunable: Prunable, node: Node) -> Iterator[Place]:
    """Iterate over the places of the groups that a tensor holds as a whole."""
    value, grouping = prunable.values.get(node.name), prunable.grouping
    if not isinstance(value, Value):
        return
    for axis, labels in enumerate(value.labels):
        if labels is None:
            continue
        # -1 is a label without a channel, and then a component without a group.
        components = np.where(labels >= 0, grouping.of_label[np.maximum(labels, 0)], -1)
        owners = np.where(components >= 0, grouping.group_of[components], -1)
        for owner in np.unique(owners[owners >= 0]).tolist():
            group = prunable.groups[owner]
            positions = np.flatnonzero(owners == owner)
            index = _by_channel(positions, grouping.channel_of[components[positions]], group.width)
            if index is not None:
                yield Place(group.name, node.name, axis, torch.from_numpy(index))


def _by_channel(
    positions: NDArray[np.int64], channels: NDArray[np.int64], width: int
) -> NDArray[np.int64] | None:
    """Sort positions into [width, m]. Return None if some channels have more positions than others."""
    counts = np.bincount(channels, minlength=width)
    if counts.min() != counts.max():
        return None
    return positions[np.argsort(channels, kind="stable")].reshape(width, -1)


def _samples(data: Iterable[Any], prunable: Prunable, name: str) -> Iterator[Sample]:
    """Cut batches into single images."""
    example, target = prunable.example_inputs, prunable.target
    device = _device_of(prunable.model)
    sizes = [leaf.shape for leaf in pytree.tree_leaves(example) if isinstance(leaf, Tensor)]
    for batch in data:
        inputs, rest = (batch[0], tuple(batch[1:])) if isinstance(batch, tuple | list) else (batch, ())
        positional, named = arguments(inputs)
        whole = named or positional
        given = (
            inputs_of_part(prunable.model, moved(inputs, device), target)
            if target
            else _in_form(inputs, example)
        )
        leaves = [leaf for leaf in pytree.tree_leaves(given) if isinstance(leaf, Tensor)]
        got = [leaf.shape[1:] for leaf in leaves]
        if got != [size[1:] for size in sizes]:
            raise DataError(
                f'criterion "{name}": the data gave images of shape {[list(size) for size in got]}, expected '
                f"{[list(size[1:]) for size in sizes]}, which the model was traced at. Give batches (inputs, "
                "targets) of this size, or trace the model at theirs."
            )
        images = len(leaves[0])
        for place in range(images):
            yield Sample(
                _cut(given, place, images),
                _cut(whole, place, images, prefers_items=True),
                _cut(rest, place, images),
            )


def _in_form(inputs: Any, example: ExampleInputs) -> ExampleInputs:
    """Bring a batch's inputs into the form in which the model was traced."""
    if isinstance(example, dict):
        return {key: inputs.get(key) for key in example} if isinstance(inputs, Mapping) else {"": inputs}
    return tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,)


def _cut(values: Any, place: int, images: int, *, prefers_items: bool = False) -> Any:
    """Return one image of a batch, at batch 1.

    A list has one item for each image if it has as many items as the batch has images. Otherwise its tensors
    are cut, as are those of the lists into which torch collates targets that are tuples.

    Args:
        values: a part of the batch.
        place: number of the image in the batch.
        images: number of images in the batch.
        prefers_items: whether a list that can be read in both ways has one item for each image, such as three
            images of three channels.
    """

    def has_items(value: Any) -> bool:
        if not isinstance(value, list) or len(value) != images:
            return False
        tensors = list(tensors_in(value))
        is_batched = bool(tensors) and all(tensor.ndim and len(tensor) == images for tensor in tensors)
        return prefers_items or not is_batched

    def one(value: Any) -> Any:
        holds_images = isinstance(value, list) or (isinstance(value, Tensor) and value.ndim > 0)
        return value[place : place + 1] if holds_images else value

    return pytree.tree_map(one, values, is_leaf=has_items)


def _device_of(model: nn.Module) -> torch.device:
    return next((tensor.device for _, tensor in named_tensors(model)), torch.device("cpu"))
