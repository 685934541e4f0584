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
from autoprune.reconstruction._factors import ranked_inputs
from autoprune.reconstruction._intercepts import bias_of, fold_into_norm, folded, norm_of, normalised_by
from autoprune.reconstruction._layer_moments import LayerMoments
from autoprune.reconstruction._leastsquares import Fit, refit, ridge_for, solved_in, strength_for
from autoprune.reconstruction._products import Products, products_of
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
    repair takes longer, because the factors of the layers are computed then. They serve all plans of one
    ranking, such as those of `make_plan` with one criterion, and increase the memory of the moments by half,
    at most to `LIMIT_BYTES` together. Layers beyond it and those that read several concatenated groups are
    fitted directly, and so are all layers of plans without a ranking. This takes several times as long for
    large layers.

    Args:
        prunable: the traced dense model.
        plan: the plan that `small` was rebuilt with.
        small: the rebuilt model with the dense model's weights.
        moments: second moments of the inputs of the dense model's layers.
        ridge: strength of the pull towards the old weights, as a share of the mean variance of the dense
            layer's inputs. None means `ridge_for` half of them.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    model = narrow(small, {})
    dense = dict(named_tensors(prunable.model))
    on = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    products = products_of(prunable.model, moments, precise_device(on))
    followers = normalised_by(prunable)
    errors: dict[str, float] = {}
    left: dict[str, str] = {}
    with torch.no_grad():
        for name, axes in read_fewer(prunable, keep_positions(prunable, plan)).items():
            layer = products.moments.layers.get(name)
            if layer is None:
                left[name] = why_not(prunable, name) or moments.left_out.get(name, "it has no moments")
                continue
            norm, bias = norm_of(model, name, followers), bias_of(model, name)
            cut = cut_of(dense[name].shape, axes, layer.groups, transposed=layer.transposed)
            # If a grouped layer loses whole groups, the others still read all their inputs, and need no fit.
            if len(cut.kept) < layer.mean.shape[1]:
                order = ranked_inputs(prunable, plan, name, layer)
                narrowed = _Narrowed(
                    name, products, cut.to(layer.second.device), norm is not None or bias is not None, ridge
                )
                fit = narrowed.fit(order)
                _put(model.get_parameter(name), norm, bias, narrowed, fit)
                errors[name] = fit.error
    return Repaired(model, errors, left)


@dataclass(frozen=True, eq=False)
class _Narrowed:
    """A layer that reads fewer channels.

    Attributes:
        name: name of its weight.
        products: products and factors of the dense model.
        cut: the kept part of the layer.
        centred: whether a constant is fitted too.
        ridge: strength of the ridge. See `repair_closed`.
    """

    name: str
    products: Products
    cut: Cut
    centred: bool
    ridge: float | None

    @property
    def moments(self) -> LayerMoments:
        """Moments of the dense layer."""
        return self.products.moments.layers[self.name]

    @property
    def places(self) -> Tensor:
        """The kept entries of the second moment."""
        span = self.moments.span
        # A patch lists the `span` positions of a channel one after the other. Pooling makes them one entry.
        return self.cut.kept[::span] // span

    @property
    def old(self) -> Tensor:
        """The kept part of the dense weight, [groups, outputs, inputs]."""
        layer, weight = self.moments, self.products.model.get_parameter(self.name).detach()
        matrices = layer.pooled(to_matrices(weight, layer.groups, transposed=layer.transposed))
        return self._of_rows(matrices.to(self.places.device)).index_select(2, self.places)

    def fit(self, order: Tensor | None) -> Fit:
        """Fit the kept outputs from the kept inputs.

        Args:
            order: the dense layer's inputs in the order of a ranking, if there is one.
        """
        layer, places, old = self.moments, self.places, self.old
        variances = layer.variances(centred=self.centred)
        # Each position of a pooled patch is a row of its own.
        rows = layer.rows * layer.span
        # All candidates have the ridge of half the inputs, so that one factor serves all of them.
        ridge = ridge_for(variances.shape[1] / 2, rows) if self.ridge is None else self.ridge
        strength = strength_for(variances, ridge)
        if order is not None:
            order, dtype = order.to(places.device), solved_in(variances, strength, old.dtype)
            # There is an order only for layers with one group, so `strength` has one entry.
            factor = self.products.factor(
                self.name, order, float(strength), centred=self.centred, dtype=dtype
            )
            if factor is not None:
                # The dense weight is pooled too, so each output has `span` rows.
                outputs = self.cut.rows[:, None] * layer.span + torch.arange(layer.span, device=places.device)
                return factor.refit(old[0], outputs.flatten())
        product = self.products(self.name, centred=self.centred)
        cross, power = self._of_rows(product.cross)[..., places].double(), self._of_rows(product.power)
        strength = strength[self.cut.groups]
        return refit(self._gram(), cross, old.double(), power, strength, dtype=old.dtype)

    def _gram(self) -> Tensor:
        """Return the second moment of the kept inputs, float64 [groups, inputs, inputs]."""
        layer, places, groups = self.moments, self.places, self.cut.groups
        gram = layer.second if len(groups) == layer.groups else layer.second[groups]
        gram = gram[:, places[:, None], places]
        if self.centred:  # in place, since the index above has made a copy
            pooled = layer.pooled(self.inputs)
            gram.baddbmm_(pooled.mT, pooled, alpha=-1 / layer.span)
        return gram

    def _of_rows(self, matrices: Tensor) -> Tensor:
        """Select the kept outputs from matrices [dense groups, outputs, ...]."""
        outputs = matrices.reshape(-1, self.moments.span, *matrices.shape[2:])
        return outputs[self.cut.rows].reshape(len(self.cut.groups), -1, *matrices.shape[2:])

    @property
    def inputs(self) -> Tensor:
        """Mean of the kept inputs, float64 [groups, 1, patch]."""
        return self.moments.mean[self.cut.groups][:, None, self.cut.kept]

    @property
    def outputs(self) -> Tensor:
        """Mean of the kept dense outputs without the layer's constant, float64 [channels]."""
        return self.products.mean(self.name)[self.cut.rows]


def _put(
    weight: nn.Parameter, norm: _BatchNorm | None, bias: nn.Parameter | None, narrowed: _Narrowed, fit: Fit
) -> None:
    """Write a refitted weight into the model, and its constant into the next BatchNorm or into its bias."""
    layer = narrowed.moments
    fitted = layer.unpooled(fit.weight)
    weight.copy_(from_matrices(fitted, weight, transposed=layer.transposed))
    reached = (fitted @ narrowed.inputs.to(fitted.dtype).mT).double().flatten()
    # With this constant, the mean of each output is that of the dense layer.
    offset = narrowed.outputs - reached
    if norm is not None:
        scale, shift = folded(norm)
        offset, reached = offset.to(scale.device), reached.to(scale.device)
        # Both models have the layer's bias, so it is not part of the offset. But the BatchNorm sees it.
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
