"""The rules by which a criterion's ranking becomes a plan: filter pruning as Li et al. describe it.

Example:
    make_plan(prunable, 0.5, criterion="l1", rule=Rule(ranking="greedy", residual="shortcut"))

Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, sections 3.2 and 3.3.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from autoprune.criteria._base import Importance, TracedModel, is_input_side
from autoprune.criteria._plans import plan_from_importance
from autoprune.errors import PlanError
from autoprune.graph import Plan, Prunable
from autoprune.graph.groups import ChannelGroup
from autoprune.graph.writers import shortcuts, writers
from autoprune.reconstruction import normalised_by


@dataclass(frozen=True)
class Rule:
    """How the importances of a criterion decide which channels stay.

    Attributes:
        ranking: "independent" ranks every group in the dense model. "greedy" ranks group after group in the
            order of execution, in the model as pruned so far: weights that read a removed channel are zero.
        residual: "all" ranks the channels of a residual stream by all layers that write into it. "shortcut"
            ranks them by the layer that starts the shortcut alone, such as its projection.
        remove: "least" removes the channels of least importance. "most" removes those of most importance, as
            a control for a criterion.
    """

    ranking: Literal["independent", "greedy"] = "independent"
    residual: Literal["all", "shortcut"] = "all"
    remove: Literal["least", "most"] = "least"

    def __post_init__(self) -> None:
        """Check the values, which type hints alone do not."""
        for key, known in (
            ("ranking", ("independent", "greedy")),
            ("residual", ("all", "shortcut")),
            ("remove", ("least", "most")),
        ):
            if getattr(self, key) not in known:
                raise PlanError(f'{key}: got {getattr(self, key)!r}, expected "{known[0]}" or "{known[1]}".')


def greedy_plan(
    prunable: TracedModel,
    widths: Mapping[str, int],
    rank: Callable[[TracedModel, Sequence[ChannelGroup]], Importance],
    done: Callable[[int, int], None],
) -> Plan:
    """Choose the channels of one group after the other, each ranked in the model as pruned so far.

    Args:
        prunable: the traced model, which is not changed.
        widths: {group name: channels to keep}. Groups that are missing keep all channels.
        rank: returns the importance of some groups of a model, which has the weights as pruned so far.
        done: called with (groups done, all groups).

    Raises:
        PlanError: the model's graph is unknown, or the widths do not fit the model.
    """
    traced = _with_graph(prunable, 'ranking = "greedy"')
    working = dataclasses.replace(traced, model=copy.deepcopy(traced.model))
    chosen: dict[str, NDArray[np.int64]] = {}
    place = {name: number for number, name in enumerate(writers(traced))}
    for number, name in enumerate(sorted(widths, key=lambda name: place.get(name, 0)), start=1):
        group = traced.group(name)
        ranked = rank(working, [group]) if widths[name] < group.width and group.frozen is None else {}
        plan = plan_from_importance(traced, {name: widths[name]}, ranked)
        chosen |= plan
        _stop_reading(working.model, group, plan.get(name, np.arange(group.width)))
        done(number, len(widths))
    return Plan(chosen)


def ranked_by_shortcut(prunable: TracedModel, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
    """Return the groups, those of residual streams with the members of the layer that starts the shortcut.

    A criterion that reads weights then ranks these groups by that layer and its BatchNorm alone.

    Raises:
        PlanError: the model has no residual stream, or its graph is unknown.
    """
    traced = _with_graph(prunable, 'residual = "shortcut"')
    alone, followers = shortcuts(traced), normalised_by(traced)
    if not alone:
        raise PlanError(
            f'residual = "shortcut": {type(prunable.model).__name__} has no residual stream. '
            'Set residual = "all".'
        )
    return [
        _members_of(group, alone[group.name], followers) if group.name in alone else group for group in groups
    ]


def _members_of(group: ChannelGroup, weights: Sequence[str], followers: Mapping[str, str]) -> ChannelGroup:
    norms = tuple(f"{followers[weight]}." for weight in weights if weight in followers)
    members = tuple(
        member
        for member in group.members
        if member.parameter in weights or (norms and member.parameter.startswith(norms))
    )
    return dataclasses.replace(group, members=members)


def _with_graph(prunable: TracedModel, where: str) -> Prunable:
    if not isinstance(prunable, Prunable):
        raise PlanError(f"{where}: needs the graph of the model. Give a result of autoprune.trace.")
    return prunable


@torch.no_grad()
def _stop_reading(model: nn.Module, group: ChannelGroup, kept: NDArray[np.int64]) -> None:
    """Zero the weights that read the channels which are not kept."""
    going = np.setdiff1d(np.arange(group.width), kept)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for member in group.members:
        parameter = parameters.get(member.parameter)
        if parameter is not None and is_input_side(model, member, parameter.ndim):
            positions = torch.from_numpy(member.index[going].reshape(-1)).to(parameter.device)
            parameter.index_fill_(member.axis, positions, 0.0)
