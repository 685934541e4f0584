"""Least squares from second moments: the weights that read fewer inputs and give nearly the same outputs.

fit = refit(gram, cross, old, power, ridge=1e-3)
fit.weight                    # [groups, outputs, inputs], in place of `old`
fit.error                     # share of the outputs' variance that is lost
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

RIDGE = 1e-3
"""Ridge as a share of the mean variance of the kept inputs."""


@dataclass(frozen=True, eq=False)
class Fit:
    """A refitted weight.

    Attributes:
        weight: float64 [groups, outputs, inputs].
        lost: float64 [groups, outputs], the mean squared difference to the outputs that were aimed at.
        power: float64 [groups, outputs], the mean square of the outputs that were aimed at.
        reached: float64 [groups, outputs], the mean square of the outputs that the new weight gives.
    """

    weight: Tensor
    lost: Tensor
    power: Tensor
    reached: Tensor

    @property
    def error(self) -> float:
        """The mean squared difference over the mean square, of all outputs; 0 for a perfect fit."""
        total = float(self.power.sum())
        return float(self.lost.sum()) / total if total > 0 else 0.0


def refit(gram: Tensor, cross: Tensor, old: Tensor, power: Tensor, *, ridge: float = RIDGE) -> Fit:
    """Fit outputs y from inputs x, given their second moments: the minimum of |W x - y|^2 + r |W - old|^2.

    The ridge pulls towards the old weights rather than towards zero, so that a layer that keeps all inputs
    keeps its weights.

    Args:
        gram: float64 [groups, inputs, inputs], mean of x x^T.
        cross: float64 [groups, outputs, inputs], mean of y x^T.
        old: float64 [groups, outputs, inputs].
        power: float64 [groups, outputs], mean of y^2.
        ridge: r as a share of the mean of the gram's diagonal.

    Returns:
        The fit; its weight is `old` for a group whose inputs are all zero.

    Reference: He, Zhang, Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017,
    section 3.1, step (ii). It samples patches and solves without a ridge.
    """
    strength = ridge * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    # A group that gets only zeros has nothing to fit: any ridge gives its old weights back.
    strength = torch.where(strength > 0, strength, torch.ones_like(strength))[:, None, None]
    damped = gram.clone()
    damped.diagonal(dim1=1, dim2=2).add_(strength[..., 0])
    fitted = torch.cholesky_solve((cross + strength * old).mT, torch.linalg.cholesky(damped)).mT
    # The normal equations give W x x^T, so that no further product with the gram is needed.
    products = cross + strength * (old - fitted)
    reached = (products * fitted).sum(dim=2)
    lost = power - 2 * (cross * fitted).sum(dim=2) + reached
    return Fit(fitted, lost.clamp_min(0), power, reached.clamp_min(0))
