"""Least squares from second moments: find weights that give nearly the same outputs from fewer inputs.

Example:
    fit = refit(gram, cross, old, power, strength_for(variances, ridge_for(64, rows=8192)))
    fit.weight                    # [groups, outputs, inputs], in place of `old`
    fit.error                     # share of the outputs' variance that is lost
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3
"""Ridge of an elimination, as a share of the mean variance of the inputs."""

RIDGE_PER_LOAD = 0.5
"""Ridge of a fit, as a share of the inputs' mean variance, over the number of inputs for each row.

For the layers of a ResNet-20, measured on 4 to 1,024 images, 0.2 to 1 gave the least error on other images.
"""

LEAST_RIDGE = 1e-5
"""Smallest ridge. Without any, inputs that are sums of others or always zero would make the fit singular."""

_CONDITION = 1e5
"""Largest condition number for float32: two digits remain in the worst case, and usually four or five."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A refitted weight.

    Attributes:
        weight: [groups, outputs, inputs], in the type that it was solved in.
        lost: float64 [groups, outputs], mean squared difference to the target outputs.
        power: float64 [groups, outputs], mean square of the target outputs.
        reached: float64 [groups, outputs], mean square of the outputs with the new weight.
    """

    weight: Tensor
    lost: Tensor
    power: Tensor
    reached: Tensor

    @property
    def error(self) -> float:
        """Mean squared difference over the mean square of the target, of all outputs. A perfect fit has 0."""
        total = float(self.power.sum())
        return float(self.lost.sum()) / total if total > 0 else 0.0


def masked(fit: Fit, zero: Tensor, gram: Tensor, cross: Tensor) -> Fit:
    """Return a fit whose weights are zero at the places [groups, outputs, inputs] that are True in `zero`.

    The other weights stay as they are fitted, because a fit of its own for the places of each output would
    take a factor for each.

    Args:
        fit: of all weights.
        zero: the places.
        gram: float64 [groups, inputs, inputs], mean of x x^T.
        cross: float64 [groups, outputs, inputs], mean of y x^T.
    """
    weight = fit.weight.masked_fill(zero, 0)
    new = weight.double()
    # Masked weights do not satisfy the normal equations, which give `refit` the same without this product.
    reached = ((new @ gram) * new).sum(dim=2)
    lost = fit.power - 2 * (cross * new).sum(dim=2) + reached
    return Fit(weight, lost.clamp_min(0), fit.power, reached.clamp_min(0))


def ridge_for(inputs: float, rows: int) -> float:
    """Return the ridge, as a share of the inputs' mean variance, for a fit on this number of rows.

    The fewer rows there are for each input, the more a fit follows chance correlations. With a ridge in
    proportion to inputs / rows, this error and the bias from the ridge are about equal.

    Reference: Hoerl, Kennard, Baldwin, Ridge regression: some simulations, Communications in Statistics 1975,
    for ridge = inputs x variance of the noise / (rows x squared weights). The quotient of noise and weights
    is one number here, measured on held-out images, so that no first fit is needed.
    """
    return max(LEAST_RIDGE, RIDGE_PER_LOAD * inputs / max(rows, 1))


def strength_for(variances: Tensor, ridge: float) -> Tensor:
    """Return the strength [groups] of a ridge that is a share of the mean of variances [groups, inputs]."""
    strength = ridge * variances.mean(dim=1)
    # If all inputs of a group are zero, any positive ridge returns its old weights.
    return torch.where(strength > 0, strength, torch.ones_like(strength))


def solved_in(variances: Tensor, strength: Tensor, dtype: torch.dtype) -> torch.dtype:
    """Return the type to solve a fit in: float32 for weights of 32 bits if that loses no accuracy.

    The condition number is at most the sum of the variances over the strength, plus 1.
    """
    if dtype == torch.float64 or bool((variances.sum(dim=1) > _CONDITION * strength).any()):
        return torch.float64
    return torch.float32


def refit(
    gram: Tensor,
    cross: Tensor,
    old: Tensor,
    power: Tensor,
    strength: Tensor,
    *,
    dtype: torch.dtype = torch.float64,
) -> Fit:
    """Fit outputs y from inputs x, given their second moments: minimise |W x - y|^2 + r |W - old|^2.

    The ridge pulls towards the old weights instead of zero, so a layer that keeps all inputs keeps its
    weights.

    Args:
        gram: float64 [groups, inputs, inputs], mean of x x^T.
        cross: float64 [groups, outputs, inputs], mean of y x^T.
        old: float64 [groups, outputs, inputs], weights before the fit.
        power: float64 [groups, outputs], mean of y^2.
        strength: float64 [groups], r, which must be positive.
        dtype: type of the weights that will hold the result.

    Returns:
        The fit. Its weight is `old` for a group whose inputs are all zero.

    Reference: He, Zhang, Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017,
    section 3.1, step (ii). It samples patches and solves without a ridge.
    """
    damped = gram.to(solved_in(gram.diagonal(dim1=1, dim2=2), strength, dtype), copy=True)
    damped.diagonal(dim1=1, dim2=2).add_(strength[:, None])
    strength = strength[:, None, None]
    # The minimum has W (gram + r I) = cross + r old. With gram + r I = L L^T, W follows from two triangular
    # solves, which take less time and lose less accuracy than an inverse.
    factor = torch.linalg.cholesky(damped)
    half = torch.linalg.solve_triangular(
        factor.mT, (cross + strength * old).to(factor.dtype), upper=True, left=False
    )
    fitted = torch.linalg.solve_triangular(factor, half, upper=False, left=False)
    # The normal equations give W x x^T without another product with the gram.
    new = fitted.double()
    products = cross + strength * (old - new)
    reached = (products * new).sum(dim=2)
    # The mean of |W x - y|^2, multiplied out. If it is close to 0, rounding may make it negative.
    lost = power - 2 * (cross * new).sum(dim=2) + reached
    return Fit(fitted, lost.clamp_min(0), power, reached.clamp_min(0))
