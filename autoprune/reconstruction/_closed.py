"""Repair in closed form: refit every layer that reads fewer channels from the dense model's moments.

Example:
    repaired = repair_closed(prunable, plan, small, moments)
    repaired.model                                 # a new model
    repaired.errors["layer1.0.conv2.weight"]       # share of the output's variance that is lost
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import named_tensors
from autoprune.rebuilding import keep_positions, narrow
from autoprune.reconstruction._contractions import from_matrices, to_matrices
from autoprune.reconstruction._intercepts import bias_of, fold_into_norm, folded, norm_of, normalised_by
from autoprune.reconstruction._layer_moments import LayerMoments
from autoprune.reconstruction._leastsquares import Fit, refit
from autoprune.reconstruction._products import Product, products_of
from autoprune.reconstruction._second_moments import Moments
from autoprune.reconstruction._sums import precise, precise_device
from autoprune.reconstruction._uses import Cut, cut_of, read_fewer, why_not


@dataclass(frozen=True, eq=False)
class Repaired:
    """A repaired model.

    Attributes:
        model: the repaired model, which is a new one.
        errors: {weight: share of the output's variance that is lost} of the refitted layers.
        left: {weight: why it was not refitted} of the other layers that read fewer channels.
    """

    model: nn.Module
    errors: Mapping[str, float]
    left: Mapping[str, str] = field(default_factory=dict)


def repair_closed(
    prunable: Prunable, plan: Plan, small: nn.Module, moments: Moments, *, ridge: float | None = None
) -> Repaired:
    """Refit every layer of a narrowed model that reads fewer channels, without running the model.

    Each layer is fitted to the dense layer's outputs as if its inputs were the dense ones. So the fit ignores
    that a normalisation over narrowed channels, such as a LayerNorm, gives other values than over all.

    The fit runs on the device of `small`, or on the CPU instead of MPS, which has no float64. The first
    repair with some moments takes longer, because the products of the dense layers are computed then.

    Args:
        prunable: the traced dense model.
        plan: the plan that `small` was rebuilt with.
        small: the rebuilt model with the dense model's weights.
        moments: second moments of the inputs of the dense model's layers.
        ridge: strength of the pull towards the old weights; see `refit`.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    model = narrow(small, {})
    dense = dict(named_tensors(prunable.model))
    on = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    product_of = products_of(prunable.model, moments, precise_device(on))
    followers = normalised_by(prunable)
    errors: dict[str, float] = {}
    left: dict[str, str] = {}
    with torch.no_grad():
        for name, axes in read_fewer(prunable, keep_positions(prunable, plan)).items():
            layer = product_of.moments.layers.get(name)
            if layer is None:
                left[name] = why_not(prunable, name) or moments.left_out.get(name, "it has no moments")
                continue
            norm, bias = norm_of(model, name, followers), bias_of(model, name)
            cut = cut_of(dense[name].shape, axes, layer.groups, transposed=layer.transposed)
            if len(cut.kept) < layer.mean.shape[1]:
                centred = norm is not None or bias is not None
                product = product_of(name, centred=centred)
                problem = _problem(dense[name].detach(), layer, product, cut, centred=centred)
                fit = problem.solve(ridge)
                _put(model.get_parameter(name), norm, bias, problem, fit)
                errors[name] = fit.error
    return Repaired(model, errors, left)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The least-squares problem of one layer: its kept outputs from its kept inputs.

    Attributes:
        gram: float64 [groups, inputs, inputs]; `refit` explains this and the next three.
        cross: float64 [groups, outputs, inputs].
        old: float64 [groups, outputs, inputs].
        power: float64 [groups, outputs].
        inputs: float64 [groups, 1, patch], mean of the kept inputs.
        outputs: float64 [channels], mean of the kept dense outputs, without the layer's constant.
        layer: the dense layer's moments.
        dtype: type of the weights.
    """

    gram: Tensor
    cross: Tensor
    old: Tensor
    power: Tensor
    inputs: Tensor
    outputs: Tensor
    layer: LayerMoments
    dtype: torch.dtype

    def solve(self, ridge: float | None) -> Fit:
        """Return the refitted weight."""
        rows = self.layer.rows * self.layer.span
        return refit(self.gram, self.cross, self.old, self.power, rows=rows, ridge=ridge, dtype=self.dtype)


def _problem(dense: Tensor, layer: LayerMoments, product: Product, cut: Cut, *, centred: bool) -> _Problem:
    """Select the problem of a narrowed layer from the dense layer's moments, about the means if `centred`."""
    device = layer.second.device
    groups, rows, kept = cut.groups.to(device), cut.rows.to(device), cut.kept.to(device)
    places = kept[:: layer.span] // layer.span
    mean = layer.mean[groups][:, None, kept]
    gram = layer.second if len(groups) == layer.groups else layer.second[groups]
    gram = gram[:, places[:, None], places]
    if centred:
        pooled = layer.pooled(mean)
        gram.baddbmm_(pooled.mT, pooled, alpha=-1 / layer.span)

    def of_rows(matrices: Tensor) -> Tensor:
        """Select the kept outputs from matrices [dense groups, outputs, ...]."""
        outputs = matrices.reshape(-1, layer.span, *matrices.shape[2:])
        return outputs[rows].reshape(len(groups), -1, *matrices.shape[2:])

    matrices = to_matrices(dense, layer.groups, transposed=layer.transposed)
    old = matrices.flatten(0, 1)[cut.rows.to(dense.device)][:, cut.kept.to(dense.device)]
    old = layer.pooled(old.reshape(len(groups), -1, len(kept)).to(device).double())
    cross = of_rows(product.cross)[..., places].double()
    outputs = product.mean.flatten()[rows]
    return _Problem(gram, cross, old, of_rows(product.power), mean, outputs, layer, dense.dtype)


def _put(
    weight: nn.Parameter, norm: _BatchNorm | None, bias: nn.Parameter | None, problem: _Problem, fit: Fit
) -> None:
    """Write a refitted weight into the model, and its constant into the next BatchNorm or into its bias."""
    layer = problem.layer
    fitted = layer.unpooled(fit.weight)
    weight.copy_(from_matrices(fitted, weight, transposed=layer.transposed))
    reached = (fitted * problem.inputs).sum(dim=2).flatten()
    offset = problem.outputs - reached
    if norm is not None:
        scale, shift = folded(norm)
        offset, reached = offset.to(scale.device), reached.to(scale.device)
        own = 0.0 if bias is None else precise(bias.detach())
        variance = _variance(fit, layer, norm).to(scale.device)
        fold_into_norm(norm, scale, shift + scale * offset, reached + own, variance)
    elif bias is not None:
        own = precise(bias)
        bias.copy_(own + offset.to(own.device))


def _variance(fit: Fit, layer: LayerMoments, norm: _BatchNorm) -> Tensor:
    """Return the variance [channels] of a refitted layer's outputs, for the BatchNorm behind it."""
    reached, power = (each.reshape(-1, layer.span).sum(dim=1) for each in (fit.reached, fit.power))
    if layer.span == 1 or norm.running_var is None:
        return reached
    # Pooled moments do not hold how positions go together, so the share that is reached counts.
    share = torch.where(power > 0, reached / power, torch.ones_like(power))
    before = precise(norm.running_var)
    return before * share.to(before.device)
