"""Criteria that read the weights alone: l1, l2, lamp, bn, random and fpgm.

If several layers write into one group (residual connections), a channel's importance is the sum over these
layers. For "bn" and "lamp" it is the mean.

Example:
    l1(given)["layer1.0.conv1"]     # float64 [width]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.criteria._base import CriterionInput, Importance, channel_slices, filter_slices, locate
from autoprune.graph.groups import ChannelGroup, Member


def l1(given: CriterionInput) -> Importance:
    """Sum the absolute weights of a channel's filters.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, section 3.1. Differs in groups
    that a residual connection ties. In the paper the shortcut's projection alone ranks them (section 3.3).
    Here all layers that write into the group count, since few groups have a projection.
    """
    return _over_filters(given, lambda filters: filters.abs().sum(dim=1))


def l2(given: CriterionInput) -> Importance:
    """Sum the Euclidean norms of a channel's filters over the layers.

    Reference: He et al., Soft Filter Pruning, IJCAI 2018, section 3.2 (p = 2).
    """
    return _over_filters(given, lambda filters: torch.linalg.vector_norm(filters, dim=1))


def lamp(given: CriterionInput) -> Importance:
    """Divide a filter's squared norm by the sum over all filters of its layer with a norm at least as large.

    The largest filter of each layer scores 1, so scores compare across layers, and no layer loses all.

    Reference: Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021, section 3,
    equation 1. The paper scores single weights. Here a filter is scored as a whole, and the scores are
    averaged over all layers that write into a group, so that they compare across groups too.
    """
    layers = {group.name: max(1, len(filter_slices(given.model, group))) for group in given.groups}
    return {name: total / layers[name] for name, total in _over_filters(given, _lamp_scores).items()}


def fpgm(given: CriterionInput) -> Importance:
    """Sum a filter's distances to all filters of its layer. Those near the geometric median go first.

    Reference: He et al., Filter Pruning via Geometric Median, CVPR 2019, section 3.3, equation 6.
    """
    return _over_filters(given, lambda filters: torch.cdist(filters, filters).sum(dim=1))


def bn(given: CriterionInput) -> Importance:
    """Average the absolute BatchNorm scales of a channel over the BatchNorms that the group passes through.

    A group without a BatchNorm scale is ranked by l1, divided by its largest value. So it lies in [0, 1], as
    most trained scales do.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    section 3.
    """
    result = channel_scales(given.model, given.groups)
    for group in given.groups:
        if group.name not in result:
            norms = _rank(given.model, group, lambda filters: filters.abs().sum(dim=1))
            result[group.name] = norms / max(float(norms.max()), np.finfo(np.float64).tiny)
    return result


def channel_scales(model: nn.Module, groups: Iterable[ChannelGroup]) -> Importance:
    """Average the absolute BatchNorm scales of every channel. Groups without a BatchNorm are left out."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    result: Importance = {}
    for group in groups:
        members = scale_members(model, group)
        scales = [channel_slices(parameters[each.parameter], each).abs().mean(dim=1) for each in members]
        if scales:
            result[group.name] = _to_numpy(torch.stack(scales).mean(dim=0))
    return result


def scale_members(model: nn.Module, group: ChannelGroup) -> list[Member]:
    """Return the members of a group that are scales of BatchNorms."""
    found = []
    for member in group.members:
        module, attribute = locate(model, member.parameter)
        if isinstance(module, _BatchNorm) and attribute == "weight":
            found.append(member)
    return found


def random(given: CriterionInput) -> Importance:
    """Draw every importance from [0, 1): the control that a criterion has to beat."""
    rng = np.random.default_rng(given.seed)
    return {group.name: rng.random(group.width) for group in given.groups}


def with_norms(given: CriterionInput, found: Mapping[str, Tensor]) -> Importance:
    """Return the given importances, and rank the groups that are missing there by `l2`."""
    missing = tuple(group for group in given.groups if group.name not in found)
    return {name: _to_numpy(values) for name, values in found.items()} | l2(replace(given, groups=missing))


def _over_filters(given: CriterionInput, norm: Callable[[Tensor], Tensor]) -> Importance:
    return {group.name: _rank(given.model, group, norm) for group in given.groups}


def _rank(model: nn.Module, group: ChannelGroup, norm: Callable[[Tensor], Tensor]) -> NDArray[np.float64]:
    """Sum `norm` [width, n] -> [width] over the group's layers. Return zeros if it has no parameters."""
    norms = [norm(filters) for filters in filter_slices(model, group)]
    return _to_numpy(torch.stack(norms).sum(dim=0)) if norms else np.zeros(group.width)


def _lamp_scores(filters: Tensor) -> Tensor:
    """Return the scores [width] of filters [width, n]. Of equal norms the first counts as the smaller."""
    norms, order = filters.square().sum(dim=1).sort(stable=True)
    # Norms are ascending, so the reversed cumulative sum at i is the sum of all norms from i on. `tiny` gives
    # a layer of zeros the score 0, not NaN.
    larger = norms.flip(0).cumsum(0).flip(0).clamp(min=torch.finfo(norms.dtype).tiny)
    return torch.empty_like(norms).index_put((order,), norms / larger)


def _to_numpy(tensor: Tensor) -> NDArray[np.float64]:
    values: NDArray[np.float64] = tensor.cpu().numpy()
    return values
