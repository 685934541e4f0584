"""Whole channels among masks: complete them over their group, and cut them from the model.

Example:
    compiled = compile_masks(prunable, masks)
    compiled.model            # smaller, with the outputs of the masked model
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import MaskError, VerificationError
from autoprune.graph import ChannelGroup, Member, Plan, Prunable
from autoprune.graph.capture import ExampleInputs, call, unchanged
from autoprune.graph.orientation import output_axis, owner_of
from autoprune.masks._masks import Masks
from autoprune.rebuilding import random_inputs, rebuild
from autoprune.support.modes import modes_kept, set_training
from autoprune.support.usercode import entry

TOLERANCE = 1e-9
"""Largest relative difference in float64 between the outputs of a masked model and of its compiled one."""


@dataclass(frozen=True, eq=False)
class Compiled:
    """A masked model whose masked channels are cut.

    Attributes:
        plan: the channels that stay.
        model: the smaller model, with the remaining masked weights at zero.
        masks: its masks.
        difference: largest relative difference of its outputs to those of the masked model, in float64.
    """

    plan: Plan
    model: nn.Module
    masks: Masks
    difference: float


def whole_channels(prunable: Prunable, masks: Masks) -> Masks:
    """Mask all parameters of the channels whose filters are all masked.

    A channel without filters may still be a constant, because of a bias or a BatchNorm. With its scales,
    biases and the weights that read it masked too, it contributes nothing.
    """
    gone = {}
    for group in prunable.searchable:
        writers = [member for member in _parameters_of(prunable, group) if _writes(prunable.model, member)]
        if writers:
            gone[group.name] = np.flatnonzero(_masked(masks, writers, group))
    return masks.also(_without(prunable, gone))


@entry(MaskError, prunable=Prunable, plan=Plan)
def channel_masks(prunable: Prunable, plan: Plan) -> Masks:
    """Mask all parameters of the channels and blocks that a plan drops: the plan as 0 and 1 for each weight.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    prunable.check(plan)
    kept = prunable.of_groups(plan)
    gone = {name: np.setdiff1d(np.arange(prunable.group(name).width), kept[name]) for name in kept}
    tensors = {name for block in prunable.dropped_blocks(plan) for name in block.tensors}
    parameters = prunable.model.named_parameters()
    dropped = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in parameters if name in tensors}
    return _without(prunable, gone).also(dropped)


def _without(prunable: Prunable, gone: Mapping[str, NDArray[np.int64]]) -> Masks:
    """Return masks of all parameters of the channels to go, {group name: channels}."""
    masks: dict[str, Tensor] = {}
    parameters = dict(prunable.model.named_parameters(remove_duplicate=False))
    for name, channels in gone.items():
        for member in _parameters_of(prunable, prunable.group(name)) if len(channels) else ():
            parameter = parameters[member.parameter]
            if member.parameter not in masks:
                masks[member.parameter] = torch.ones_like(parameter, dtype=torch.bool)
            positions = torch.from_numpy(member.index[channels].reshape(-1)).to(parameter.device)
            masks[member.parameter].index_fill_(member.axis, positions, False)
    return Masks(masks)


@entry(MaskError, prunable=Prunable, masks=Masks)
def compile_masks(prunable: Prunable, masks: Masks) -> Compiled:
    """Cut the channels that are masked in all parameters of their group, and prove that the outputs stay.

    Groups that cross a normalisation over channels stay whole, because zeros count in it. A group of which
    every channel is masked keeps its first.

    Args:
        prunable: the traced model, over the trained weights.
        masks: its masks, such as those of `make_masks(prunable, granularity="filter")`.

    Raises:
        MaskError: the masks are of another model.
        VerificationError: the smaller model gives other outputs than the masked one.
    """
    masked = masks.applied(prunable.model)
    keep: dict[str, NDArray[np.int64]] = {}
    for group in prunable.searchable:
        gone = _masked(masks, _parameters_of(prunable, group), group)
        if group.crosses is None and gone.any():
            keep[group.name] = np.flatnonzero(~gone) if not gone.all() else np.array([0])
    plan = Plan(keep)
    small = rebuild(replace(prunable, model=masked), plan)
    difference = _difference(masked, small, prunable)
    if not difference <= TOLERANCE:
        raise VerificationError(
            f"compile_masks: the outputs differ by {difference:.1e}, expected at most {TOLERANCE:.0e}. "
            "Please report this model."
        )
    return Compiled(plan, small, narrow_masks(prunable, masks, plan), difference)


def narrow_masks(prunable: Prunable, masks: Masks, plan: Plan) -> Masks:
    """Return the masks of the model that `rebuild(prunable, plan)` gives.

    Raises:
        MaskError: the masks are of another model.
    """
    # A rebuild slices any weights, so ones with zeros at the masked places show where the masks end up.
    ones = copy.deepcopy(prunable.model)
    with torch.no_grad():
        for parameter in ones.parameters():
            parameter.fill_(1)
    masks.apply(ones)
    small = dict(rebuild(replace(prunable, model=ones), plan).named_parameters(remove_duplicate=False))
    left = {name: small[name].detach() != 0 for name in masks if name in small}
    return Masks({name: mask for name, mask in left.items() if not mask.all()})


def _parameters_of(prunable: Prunable, group: ChannelGroup) -> list[Member]:
    names = {name for name, _ in prunable.model.named_parameters(remove_duplicate=False)}
    return [member for member in group.members if member.parameter in names]


def _writes(model: nn.Module, member: Member) -> bool:
    """Return whether a member is the output side of a weight with two axes or more."""
    path, attribute = owner_of(member.parameter)
    module = model.get_submodule(path)
    ndim = model.get_parameter(member.parameter).ndim
    return attribute.endswith("weight") and ndim > 1 and member.axis == output_axis(module)


def _masked(masks: Masks, members: list[Member], group: ChannelGroup) -> NDArray[np.bool_]:
    """Return which channels [width] are masked at all their positions in all of the members."""
    gone = np.ones(group.width, bool)
    for member in members:
        mask = masks.get(member.parameter)
        if mask is None:
            return np.zeros(group.width, bool)
        alive = mask.movedim(member.axis, 0).flatten(1).any(1) if mask.ndim > 1 else mask
        gone &= ~alive.cpu().numpy()[member.index].any(1)
    return gone


def _difference(masked: nn.Module, small: nn.Module, prunable: Prunable) -> float:
    """Compare the outputs of two models in eval mode and float64 on random inputs of the example's shapes."""
    inputs = random_inputs(prunable, torch.Generator().manual_seed(0))
    first, second = (
        list(_outputs(prunable.part_of(copy.deepcopy(model)).cpu().double(), inputs))
        for model in (masked, small)
    )
    largest = max(float(each.abs().max()) for each in first) or 1.0
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True)) / largest


def _outputs(model: nn.Module, inputs: ExampleInputs) -> Iterator[Tensor]:
    with torch.no_grad(), modes_kept(model), unchanged(model):
        set_training(model, False)
        outputs = call(model, inputs)
    yield from (each for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor))
