"""Repair in closed form: every layer that reads fewer channels is refitted from the dense model's moments.

repaired = repair_closed(prunable, plan, small, moments)
repaired.model                  # a new model
repaired.errors["layer1.0.conv2.weight"]       # share of the output's variance that is lost
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import named_tensors
from autoprune.rebuild import keep_positions, narrow
from autoprune.reconstruction.contractions import from_matrices, to_matrices
from autoprune.reconstruction.intercepts import bias_of, fold_into_norm, folded, norm_of, normalised_by
from autoprune.reconstruction.leastsquares import RIDGE, refit
from autoprune.reconstruction.second_moments import LayerMoments, Moments

Axes = Mapping[int, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repaired model.

    Attributes:
        model: a new one; the model that was given is not changed.
        errors: {weight: share of its output's variance that the narrower layer loses} of refitted layers.
        left: {weight: why it stays as it was}, of layers that read fewer channels.
    """

    model: nn.Module
    errors: Mapping[str, float]
    left: Mapping[str, str] = field(default_factory=dict)


def repair_closed(
    prunable: Prunable, plan: Plan, small: nn.Module, moments: Moments, *, ridge: float = RIDGE
) -> Repaired:
    """Refit every layer of a narrowed model whose inputs are fewer, without running the model.

    Each layer is fitted to the dense layer's outputs as if the channels that reach it were the dense ones.

    Args:
        prunable: the traced dense model.
        plan: the plan that `small` was rebuilt with.
        small: the rebuilt model with the dense model's weights.
        moments: of the dense model's inputs to its layers.
        ridge: strength of the pull towards the old weights; see `leastsquares.refit`.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    model = narrow(small, {})
    dense = dict(named_tensors(prunable.model))
    followers = normalised_by(prunable)
    errors: dict[str, float] = {}
    left: dict[str, str] = {}
    with torch.no_grad():
        for name, axes in keep_positions(prunable, plan).items():
            layer = moments.layers.get(name)
            transposed = layer is not None and layer.transposed
            if dense[name].ndim < 2 or (0 if transposed else 1) not in axes:
                continue
            if layer is None:
                left[name] = moments.left_out.get(name, "it has no moments")
            elif transposed and layer.groups > 1:
                left[name] = "it is a transposed convolution with groups"
            else:
                errors[name] = _refit_layer(
                    model, name, _cut(dense[name], axes, layer), followers, ridge=ridge
                )
    return Repaired(model, errors, left)


@dataclass(frozen=True, eq=False)
class _Cut:
    """A layer whose weight is narrowed, with its moments.

    Attributes:
        weight: float64 [groups, outputs, patch], the dense weights of the outputs that stay.
        kept: int64 [kept], the positions of a patch that stay.
        layer: the moments of the groups that stay.
    """

    weight: Tensor
    kept: Tensor
    layer: LayerMoments


def _cut(weight: Tensor, axes: Axes, layer: LayerMoments) -> _Cut:
    """Find the rows and columns of a dense layer that stay; every group that stays keeps as many of each."""
    matrices = to_matrices(weight.detach().double().cpu(), layer.groups, transposed=layer.transposed)
    groups, outputs, _ = matrices.shape
    input_axis, output_axis = (0, 1) if layer.transposed else (1, 0)
    rows = torch.from_numpy(axes.get(output_axis, np.arange(groups * outputs)))
    alive = torch.unique(rows // outputs)
    kernel = math.prod(weight.shape[2:])
    kept = (torch.from_numpy(axes[input_axis])[:, None] * kernel + torch.arange(kernel)).flatten()
    stay = matrices.flatten(0, 1)[rows].reshape(len(alive), -1, matrices.shape[2])
    part = LayerMoments(layer.second[alive], layer.mean[alive], layer.rows, layer.transposed)
    return _Cut(stay, kept, part)


def _refit_layer(
    model: nn.Module, name: str, cut: _Cut, followers: Mapping[str, str], *, ridge: float
) -> float:
    """Put the refitted weight of one layer, and its constant, into the model; returns the relative error."""
    norm, bias = norm_of(model, name, followers), bias_of(model, name)
    movable = norm is not None or bias is not None
    moment = cut.layer.covariance if movable else cut.layer.second
    fit = refit(moment, cut.weight, cut.kept, ridge=ridge)
    weight = model.get_parameter(name)
    weight.copy_(from_matrices(fit.weight, weight, transposed=cut.layer.transposed))
    kept_mean = cut.layer.mean[:, cut.kept, None]
    reached = (fit.weight @ kept_mean).flatten()
    offset = (cut.weight @ cut.layer.mean[..., None]).flatten() - reached
    if norm is not None:
        scale, shift = folded(norm)
        offset, reached = offset.to(scale.device), reached.to(scale.device)
        gram = moment[:, cut.kept[:, None], cut.kept]
        variance = ((fit.weight @ gram) * fit.weight).sum(dim=2).flatten().clamp_min(0)
        own = 0.0 if bias is None else bias.detach().double()
        fold_into_norm(norm, scale, shift + scale * offset, reached + own, variance.to(scale.device))
    elif bias is not None:
        bias.copy_(bias.double() + offset.to(bias.device))
    return fit.error
