"""Refit a layer at any width from one Cholesky factor, if its inputs are always removed in the same order.

Example:
    factor = factorise(ordered_covariance, weight, order, strength)     # once for a dense model and a ranking
    factor.refit(old, rows).weight                                      # one triangular solve
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.graph import Plan, Prunable
from autoprune.reconstruction._layer_moments import LayerMoments
from autoprune.reconstruction._leastsquares import Fit


@dataclass(frozen=True, eq=False)
class Factor:
    """The Cholesky factor of a layer's second moments with their ridge, with the inputs in an order.

    If the moments are L L^T, those of the first k inputs are the product of the first k rows of L. So the
    first columns of weight @ L hold the parts of the outputs that the first inputs explain, and the other
    columns hold the error.

    Attributes:
        order: int64 [inputs], the inputs, the last to be removed first.
        lower: [inputs, inputs], L.
        parts: [outputs, inputs], weight @ L.
        total: float64 [outputs], sum of squares of the parts.
        squares: float64 [outputs], sum of squares of the weight.
        strength: strength of the ridge.
    """

    order: Tensor
    lower: Tensor
    parts: Tensor
    total: Tensor
    squares: Tensor
    strength: float

    @property
    def nbytes(self) -> int:
        """Memory of the two large matrices."""
        return self.lower.nbytes + self.parts.nbytes

    def refit(self, old: Tensor, rows: Tensor) -> Fit:
        """Fit some outputs of the dense layer from its first inputs. `refit` gives the same from the moments.

        Args:
            old: [n, kept], the dense weights of these outputs and inputs, with the inputs in ascending order.
            rows: int64 [n], the outputs to fit.

        Returns:
            The fit, with one group and its inputs in ascending order.
        """
        kept = old.shape[1]
        parts = self.parts[:, :kept].index_select(0, rows)
        fitted = torch.linalg.solve_triangular(self.lower[:kept, :kept], parts, upper=False, left=False)
        fitted = fitted.index_select(1, self.order[:kept].argsort())
        explained, own = _squares(parts), _squares(fitted)
        shared = (fitted * old.to(fitted.dtype)).sum(dim=1).double()
        # The factor is that of the moments with their ridge, whose share is subtracted.
        reached = explained - self.strength * own
        power = self.total[rows] - self.strength * self.squares[rows]
        # The loss of W against the dense weight D. With the ridge it is total - explained, and the ridge's
        # share of it is strength x |D - W|^2. A removed input has the weight 0 in W.
        lost = self.total[rows] - explained - self.strength * (own - 2 * shared + self.squares[rows])
        return Fit(fitted[None], *(each.clamp_min(0)[None] for each in (lost, power, reached)))


def factorise(moment: Tensor, weight: Tensor, order: Tensor, strength: float) -> Factor:
    """Factorise a layer's second moments.

    Args:
        moment: [inputs, inputs], with the inputs in the order. The ridge is added to it.
        weight: [outputs, inputs], the dense weights.
        order: int64 [inputs], the inputs, the last to be removed first.
        strength: strength of the ridge.
    """
    moment.diagonal().add_(strength)
    lower = torch.linalg.cholesky(moment)
    weight = weight.to(moment.dtype)
    parts = weight.index_select(1, order) @ lower
    return Factor(order, lower, parts, _squares(parts), _squares(weight), strength)


def ranked_inputs(prunable: Prunable, plan: Plan, name: str, layer: LayerMoments) -> Tensor | None:
    """Return the entries of a layer's second moment in the order of a plan's ranking.

    Args:
        prunable: the traced dense model.
        plan: the plan.
        name: name of the layer's weight.
        layer: its moments.

    Returns:
        int64 [m] on the CPU, the most important first, or None if no ranking orders all of them or the layer
        has groups.
    """
    axis = 0 if layer.transposed else 1
    group, index = _sole_groups(prunable).get((name, axis), ("", np.empty((0, 0), np.int64)))
    ranking = plan.ranking.get(group)
    if ranking is None or len(ranking) != len(index) or layer.groups > 1:
        return None
    channels = torch.from_numpy(index[ranking].reshape(-1))
    kernel = math.prod(prunable.shapes[name][2:])
    return (channels[:, None] * kernel + torch.arange(kernel)).flatten()[:: layer.span] // layer.span


@lru_cache(maxsize=1)  # quickly made again, and each entry keeps a traced model in memory
def _sole_groups(prunable: Prunable) -> dict[tuple[str, int], tuple[str, NDArray[np.int64]]]:
    """Return {(tensor, axis): (group, positions of its channels)} of axes that belong to one group alone."""
    return {
        (member.parameter, member.axis): (group.name, member.index)
        for group in prunable.groups
        for member in group.members
        if member.index.size == prunable.shapes[member.parameter][member.axis]
    }


def _squares(matrix: Tensor) -> Tensor:
    """Return the sum of squares of each row, as float64."""
    squares: Tensor = torch.linalg.vector_norm(matrix, dim=1).double().square()
    return squares
