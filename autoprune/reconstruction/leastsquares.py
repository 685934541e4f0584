"""Least squares from second moments: the weights that read fewer inputs and give nearly the same outputs.

fit = refit(covariance, weight, kept, ridge=1e-3)
fit.weight                    # [groups, outputs, kept], in place of weight[..., kept]
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
        weight: float64 [groups, outputs, kept].
        error: the mean squared difference of the outputs over their mean square, 0 for a perfect fit.
    """

    weight: Tensor
    error: float


def refit(moment: Tensor, weight: Tensor, kept: Tensor, *, ridge: float = RIDGE) -> Fit:
    """Fit the outputs of a layer from some of its inputs.

    The ridge pulls towards the old weights rather than towards zero, so that a layer that keeps all inputs
    keeps its weights.

    Args:
        moment: float64 [groups, patch, patch], the (centred) second moment of the inputs.
        weight: float64 [groups, outputs, patch], the dense weights of the outputs that stay.
        kept: int64 [kept], the positions of a patch that stay.
        ridge: strength, as a share of the mean of the moment's diagonal.

    Reference: He, Zhang, Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017,
    section 3.1, step (ii). It samples patches and solves without a ridge.
    """
    columns = moment[:, :, kept]  # [groups, patch, kept]
    gram = columns[:, kept]
    fitted = solve(gram, weight @ columns, weight[..., kept], ridge=ridge)
    cross = ((weight @ columns) * fitted).sum()
    total = ((weight @ moment) * weight).sum()
    left = total - 2 * cross + ((fitted @ gram) * fitted).sum()
    error = float((left / total).clamp_min(0)) if float(total) > 0 else 0.0
    return Fit(fitted, error)


def solve(gram: Tensor, cross: Tensor, old: Tensor, *, ridge: float) -> Tensor:
    """Return the minimiser of |W x - y|^2 + r |W - old|^2 over W.

    Args:
        gram: float64 [groups, inputs, inputs], mean of x x^T.
        cross: float64 [groups, outputs, inputs], mean of y x^T.
        old: float64 [groups, outputs, inputs].
        ridge: r as a share of the mean of the gram's diagonal.

    Returns:
        float64 [groups, outputs, inputs]; `old` for a group whose inputs are all zero.
    """
    size = gram.shape[-1]
    strength = ridge * gram.diagonal(dim1=1, dim2=2).mean(dim=1)
    # A group that gets only zeros has nothing to fit: any ridge gives its old weights back.
    strength = torch.where(strength > 0, strength, torch.ones_like(strength))[:, None, None]
    identity = torch.eye(size, dtype=gram.dtype, device=gram.device)
    factor = torch.linalg.cholesky(gram + strength * identity)
    return torch.cholesky_solve((cross + strength * old).mT, factor).mT
