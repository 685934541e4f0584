"""The second moments of one layer's input patches, and the layout of weights that are multiplied with them.

Example:
    layer.covariance @ layer.pooled(matrices).mT
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_ROWS = 512
"""Number of rows of a second moment that are copied at once."""


@dataclass(frozen=True, eq=False)
class LayerMoments:
    """Moments of one layer's input patches.

    Attributes:
        second: float64 [groups, m, m], mean of x x^T over all rows. m is the size of a patch, or the number
            of its channels if positions in the patch are pooled.
        mean: float64 [groups, patch], mean of x.
        rows: number of patches seen.
        transposed: whether the layer is a transposed convolution, with its inputs on axis 0 of the weight.
    """

    second: Tensor
    mean: Tensor
    rows: int
    transposed: bool = False

    @property
    def groups(self) -> int:
        """Number of groups of the layer's inputs."""
        return len(self.second)

    @property
    def span(self) -> int:
        """Number of positions of a patch that one entry of the second moment pools, or 1 if none are."""
        return self.mean.shape[1] // self.second.shape[1]

    @property
    def covariance(self) -> Tensor:
        """The second moment about the mean, float64 [groups, m, m]."""
        mean = self.pooled(self.mean[:, None])
        # Each position of a patch has a mean of its own. Pooling averages their products as well.
        return self.second - mean.mT @ mean / self.span

    def variances(self, *, centred: bool) -> Tensor:
        """Return the diagonal [groups, m] of the second moment, about the mean if `centred`."""
        squares = self.second.diagonal(dim1=1, dim2=2)
        if not centred:
            return squares
        return squares - self.pooled(self.mean[:, None]).square().sum(dim=1) / self.span

    def ordered(self, order: Tensor, *, centred: bool, dtype: torch.dtype) -> Tensor:
        """Return the second moment of a layer without groups, [m, m], with its inputs in another order.

        Args:
            order: int64 [m].
            centred: whether it is about the mean.
            dtype: type of the result.
        """
        mean = self.pooled(self.mean[:, None])[0]
        ordered = torch.empty_like(self.second[0], dtype=dtype)
        # Few rows at a time, because a float64 copy of the largest layer would take much memory.
        for start in range(0, len(order), _ROWS):
            rows = order[start : start + _ROWS]
            block = self.second[0].index_select(0, rows)
            if centred:
                block.addmm_(mean[:, rows].T, mean, alpha=-1 / self.span)
            ordered[start : start + _ROWS] = block.index_select(1, order)
        return ordered

    def part(self, positions: Tensor) -> Tensor:
        """Return the covariance of some inputs, float64 [groups, n, n] on the CPU, for positions [n]."""
        mean = self.pooled(self.mean[:, None])[..., positions.to(self.mean.device)].cpu()
        second = self.second[:, positions[:, None], positions].cpu()
        return second - mean.mT @ mean / self.span

    def power(self, matrices: Tensor) -> float:
        """Return the mean square of the outputs about their mean, summed over outputs.

        Args:
            matrices: the layer's pooled weight, float64 [groups, rows, m] on the CPU.
        """
        mean = self.pooled(self.mean[:, None]).cpu()
        squares = ((matrices @ self.second.cpu()) * matrices).sum()
        return float(squares - (matrices @ mean.mT).square().sum() / self.span)

    def pooled(self, matrices: Tensor) -> Tensor:
        """Split each row of matrices over a patch, such as a weight, into a row for each pooled position."""
        return split_positions(matrices, self.span)

    def unpooled(self, matrices: Tensor) -> Tensor:
        """Join the rows that `pooled` split, of all or some channels: [groups, rows, channels x span]."""
        groups, rows, channels = matrices.shape
        split = matrices.reshape(groups, rows // self.span, self.span, channels)
        return split.transpose(2, 3).flatten(2, 3)

    def to(self, device: torch.device) -> LayerMoments:
        """Return the moments on a device."""
        return replace(self, second=self.second.to(device), mean=self.mean.to(device))


def split_positions(matrices: Tensor, span: int) -> Tensor:
    """Turn rows over patches, [groups, rows, channels x span], into rows over channels.

    Returns:
        [groups, rows x span, channels], with the rows of one patch next to each other.
    """
    groups, rows, patch = matrices.shape
    return matrices.reshape(groups, rows, patch // span, span).transpose(2, 3).flatten(1, 2)
