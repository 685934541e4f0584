"""Form channel groups: channels that span the same axes, equally often, make one group.

Example:
    grouping = make_groups(model, axes, components, terms, unused)
    grouping.groups      # (ChannelGroup("conv1", ...), ...)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.graph.context import MacTerm
from autoprune.graph.groups import ChannelGroup, Member
from autoprune.graph.labels import FIXED, STRUCTURAL, Components, LabelVector
from autoprune.graph.lineage import Lineage
from autoprune.graph.orientation import output_axis, owner_of
from autoprune.graph.propagate import ParameterAxes


@dataclass(frozen=True, eq=False)
class _Axis:
    """The components along one axis of a parameter, or of a factor of a MAC count (parameter None)."""

    parameter: str | None
    axis: int
    components: LabelVector


@dataclass(frozen=True, eq=False)
class Grouping:
    """The groups of a model.

    Attributes:
        groups: the channel groups, in model order.
        group_of: int64 [components], the position of each component's group in `groups`, or -1 if the
            component is no channel.
        channel_of: int64 [components], the channel's number inside its group, or -1.
        of_label: int64 [labels], the component of each label.
    """

    groups: tuple[ChannelGroup, ...]
    group_of: LabelVector
    channel_of: LabelVector
    of_label: LabelVector

    def owners(self, vector: LabelVector) -> set[int]:
        """Return the positions in `groups` of the groups that have channels on `vector`."""
        return set(self.group_of[self.of_label[vector[vector != FIXED]]].tolist()) - {-1}

    def kept(self, vector: LabelVector, dropped: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return a bool mask of the positions of `vector` whose component is not `dropped`."""
        mask = np.ones(len(vector), bool)
        labelled = vector != FIXED
        mask[labelled] = ~dropped[self.of_label[vector[labelled]]]
        return mask


def make_groups(
    model: nn.Module,
    axes: ParameterAxes,
    components: Components,
    terms: Sequence[MacTerm],
    unused: frozenset[str],
    lineage: Lineage | None = None,
    target: str = "",
) -> Grouping:
    """Form the channel groups of a model.

    Args:
        model: the dense model. A component is a channel if it lies on a parameter, not only on buffers.
        axes: labels of all axes of parameters and buffers.
        components: connected components of the labels.
        terms: MAC counts. Channels that occur in them unequally often belong to different groups.
        unused: names of parameters that no graph reads.
        lineage: groups whose names and numbers of channels the model's own take.
        target: path of the submodule that was traced, or "" for the model.
    """
    lineage = lineage or Lineage()
    inherited = lineage.channels(axes, components)
    parameters = {name for name, _ in model.named_parameters()}
    listed = list(_labelled_axes(axes, components, terms))
    occurrences = _occurrences(listed, len(np.unique(components.of_label)))
    has_parameter = np.zeros(len(occurrences), bool)
    for axis in listed:
        if axis.parameter in parameters:
            has_parameter[axis.components] = True
    families: dict[tuple[object, ...], list[int]] = {}
    for component in np.flatnonzero(has_parameter).tolist():
        frozen = components.frozen.get(component)
        if frozen != STRUCTURAL:
            # The reasons are part of the key, so that each group has one reason for all its channels.
            key = (occurrences[component], frozen, components.crosses.get(component), inherited[0][component])
            families.setdefault(key, []).append(component)
    names = [group.name for group in lineage.groups]
    return _number(model, listed, families, components, unused, names, inherited, target)


def _labelled_axes(axes: ParameterAxes, components: Components, terms: Sequence[MacTerm]) -> Iterator[_Axis]:
    for name, vectors in axes.labels.items():
        for axis, vector in enumerate(vectors):
            if vector is not None:
                yield _Axis(name, axis, components.of_label[vector])
    for term in terms:
        for factor in term.factors:
            if factor.labels is not None:
                labelled = factor.labels[factor.labels != FIXED]
                yield _Axis(None, 0, components.of_label[labelled])


def _occurrences(listed: Sequence[_Axis], count: int) -> list[bytes]:
    """Return for each component the multiset of axes that it lies on, as bytes that compare equal."""
    if not listed:  # no parameter has an axis
        return [b""] * count
    numbers = np.concatenate([np.full(len(a.components), i, np.int64) for i, a in enumerate(listed)])
    # One integer holds both component and axis, because integers sort many times faster than pairs.
    places = np.concatenate([a.components for a in listed]) * len(listed) + numbers
    distinct, times = np.unique(places, return_counts=True)
    of_place, axis = np.divmod(distinct, len(listed))
    table = np.stack([axis, times], axis=1)
    starts = np.searchsorted(of_place, np.arange(count + 1))
    return [table[starts[c] : starts[c + 1]].tobytes() for c in range(count)]


def _number(
    model: nn.Module,
    listed: Sequence[_Axis],
    families: dict[tuple[object, ...], list[int]],
    components: Components,
    unused: frozenset[str],
    names: Sequence[str],
    inherited: tuple[LabelVector, LabelVector],
    target: str,
) -> Grouping:
    count = len(inherited[0])
    family_of = np.full(count, -1, np.int64)
    for number, family in enumerate(families.values()):
        family_of[family] = number
    places = _places(listed, family_of, len(families))
    leads = [_lead(model, listed, family) for family in places]
    # In the order of the model's parameters, whatever the order in which the forward pass uses them.
    order = sorted(range(len(families)), key=lambda number: leads[number])
    group_of = np.full(count, -1, np.int64)
    channel_of = np.full(count, -1, np.int64)
    groups: list[ChannelGroup] = []
    taken: set[str] = set()
    wanted = [
        names[inherited[0][family[0]]] if inherited[0][family[0]] >= 0 else "" for family in families.values()
    ]
    for number in order:
        lead = listed[leads[number]]
        channels = _channels_in_order(lead, family_of, number)
        if wanted[number]:
            # A rebuilt model keeps the channel order of its dense model, so that plans of both compose.
            channels = channels[np.argsort(inherited[1][channels], kind="stable")]
        group_of[channels] = len(groups)
        channel_of[channels] = np.arange(len(channels))
        first = int(channels[0])
        members = tuple(
            _member(listed[place], family_of, number, channel_of, len(channels)) for place in places[number]
        )
        reason = components.frozen.get(first)
        if reason is None and all(member.parameter in unused for member in members):
            is_outside = bool(target) and not members[0].parameter.startswith(f"{target}.")
            unread = f"{members[0].parameter}: the forward pass never reads it"
            reason = f"it lies outside of {target}" if is_outside else unread
        name = _unique_name(wanted[number] or _name(model, lead), taken)
        groups.append(ChannelGroup(name, len(channels), members, reason, components.crosses.get(first)))
    return Grouping(tuple(groups), group_of, channel_of, components.of_label)


def _places(listed: Sequence[_Axis], family_of: LabelVector, count: int) -> list[list[int]]:
    """Return for each family the positions in `listed` of the parameter axes that it spans."""
    places: list[list[int]] = [[] for _ in range(count)]
    for number, axis in enumerate(listed):
        if axis.parameter is not None:
            families = np.unique(family_of[axis.components])
            for family in families[families >= 0].tolist():
                places[family].append(number)
    return places


def _lead(model: nn.Module, listed: Sequence[_Axis], places: Sequence[int]) -> int:
    """Return the axis that names the group: the first output axis of a weight, else its first axis."""
    return next((place for place in places if _makes_output(model, listed[place])), places[0])


def _makes_output(model: nn.Module, axis: _Axis) -> bool:
    path, leaf = owner_of(str(axis.parameter))
    if not leaf.endswith("weight") or axis.axis != output_axis(model.get_submodule(path)):
        return False
    # Spectral norm also stores vectors along both axes of a weight, and owner_of names them after the weight.
    holder, _, stored = str(axis.parameter).rpartition(".")
    return stored.endswith("weight") or getattr(model.get_submodule(holder), stored).ndim > 1


def _channels_in_order(axis: _Axis, family_of: LabelVector, family: int) -> LabelVector:
    # Number the channels by their first position along the axis that names the group.
    inside: LabelVector = axis.components[family_of[axis.components] == family]
    _, first = np.unique(inside, return_index=True)
    ordered: LabelVector = inside[np.sort(first)]
    return ordered


def _member(axis: _Axis, family_of: LabelVector, family: int, channel_of: LabelVector, width: int) -> Member:
    positions = np.flatnonzero(family_of[axis.components] == family)
    channels = channel_of[axis.components[positions]]
    # All channels of a group span equally many positions of the axis, so the rows have the same length.
    by_channel = positions[np.argsort(channels, kind="stable")]
    return Member(str(axis.parameter), axis.axis, by_channel.reshape(width, -1).astype(np.int64))


def _name(model: nn.Module, axis: _Axis) -> str:
    module = owner_of(str(axis.parameter))[0] or str(axis.parameter)
    return module if axis.axis == 0 or _makes_output(model, axis) else f"{module}:in"


def _unique_name(base: str, taken: set[str]) -> str:
    name, number = base, 1
    while name in taken:
        number += 1
        name = f"{base}:{number}"
    taken.add(name)
    return name
