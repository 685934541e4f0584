"""Local search after an elimination: swap kept and removed channels as long as the readers' error falls.

Example:
    order = eliminate(readers, width=64).order
    kept = exchange(readers, order[-16:])           # 16 channels with the same or a lower error
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.reconstruction._elimination import Reader
from autoprune.reconstruction._leastsquares import RIDGE

SWAPS = 32
"""Largest number of swaps. Groups of up to 64 channels needed at most 7."""

CANDIDATES = 8
"""Number of removed channels tried for each swap, those that would lower the error most if added."""

_LEAST_FALL = 1e-9
"""Least decrease of the error, as a share of the outputs' mean square, for a swap."""


def exchange(
    readers: Sequence[Reader], kept: Sequence[int] | NDArray[np.int64], *, ridge: float = RIDGE
) -> NDArray[np.int64]:
    """Swap kept and removed channels, one pair at a time, as long as the refitted readers' error falls.

    Each swap is the best one among the pairs of a kept channel and a candidate.

    Args:
        readers: all layers that read the channels.
        kept: the channels to start from.
        ridge: added to each moment's diagonal, as a share of its mean.

    Returns:
        The same number of channels, sorted. Their error, as `eliminate` defines it, is at most that of
        `kept`.

    Reference: Meng et al., OSSCAR, ICML 2024, section 3 (local search). It swaps several channels at once.
    """
    fits = [_Fit(reader, ridge) for reader in readers]
    inside = np.sort(np.asarray(kept, dtype=np.int64))
    for fit in fits:
        fit.toggle(inside)
    for _ in range(SWAPS):
        swap = _best_swap(fits, inside)
        if swap is None:
            break
        for fit in fits:
            fit.toggle(np.array(swap))
        # The added channel is not in `inside` yet, and the removed one is: this adds and removes them.
        inside = np.setxor1d(inside, swap)
    return inside


def _best_swap(fits: Sequence[_Fit], inside: NDArray[np.int64]) -> tuple[int, int] | None:
    """Return the channel to add and the channel to remove, or None if no pair lowers the error."""
    outside = np.setdiff1d(np.arange(fits[0].width), inside)
    if not len(outside) or not len(inside):
        return None
    gains = np.sum([fit.gains(outside) for fit in fits], axis=0)
    best, least = None, -_LEAST_FALL
    for candidate in np.argsort(-gains, kind="stable")[:CANDIDATES]:
        added = int(outside[candidate])
        costs = np.sum([fit.costs_with(added, inside) for fit in fits], axis=0)
        change = float(costs.min() - gains[candidate])
        if change < least:
            best, least = (added, int(inside[costs.argmin()])), change
    return best


class _Fit:
    """A reader refitted on some channels, as a table that is updated when a channel is added or removed.

    Let K be the kept positions, O the others, H the moment and T its product with the dense weight. In the
    columns of K, of O and of the outputs, the table holds:

    - in the rows of K: H_KK^-1, H_KK^-1 H_KO, and the refitted weight H_KK^-1 T_K;
    - in the rows of O: -H_OK H_KK^-1, H_OO - H_OK H_KK^-1 H_KO, and T_O - H_OK H_KK^-1 T_K.

    A position is added or removed by one pivot step of Gauss-Jordan elimination, which is its own inverse.

    Attributes:
        width: number of channels, kept or not.
    """

    def __init__(self, reader: Reader, ridge: float) -> None:
        moment, weight, self._total = reader.system(ridge)
        self._table = torch.cat([moment, moment @ weight], dim=1)
        self.width, self._size = reader.index.shape

    def toggle(self, channels: NDArray[np.int64]) -> None:
        """Add the channels that are not kept, and remove those that are."""
        rows = self._rows_of(channels)
        if not len(rows):
            return
        pivot = torch.linalg.inv(self._table[rows[:, None], rows])
        solved, column = pivot @ self._table[rows], self._table[:, rows]
        self._table.addmm_(column, solved, alpha=-1)
        self._table[rows] = solved
        self._table[:, rows] = -column @ pivot
        self._table[rows[:, None], rows] = pivot

    def gains(self, channels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the decrease of the error if each of these channels were added to the kept ones."""
        blocks, left = self._blocks_and_targets(channels)
        gains: NDArray[np.float64] = _squares(blocks, left).numpy()
        return gains / self._total

    def costs_with(self, channel: int, kept: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the increase of the error if each kept channel were removed after `channel` was added."""
        # With the channel c, the inverse of H_KK gains U S^-1 U^T, and the weight of K loses U S^-1 V. Here U
        # is H_KK^-1 H_Kc. S and V are the parts of H_cc and T_c that K does not explain: the table at c.
        block, left = self._blocks_and_targets(np.array([channel]))
        shared = self._table[self._rows_of(kept)[:, None], self._rows_of(np.array([channel]))]
        shared = shared.view(len(kept), self._size, self._size)
        inverse, weight = self._blocks_and_targets(kept)
        weight = weight - shared @ torch.linalg.solve(block, left)
        inverse = inverse + shared @ torch.linalg.solve(block, shared.mT)
        costs: NDArray[np.float64] = _squares(inverse, weight).numpy()
        return costs / self._total

    def _blocks_and_targets(self, channels: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        """Return the diagonal blocks [n, size, size] and the last columns [n, size, outputs] of channels."""
        rows = self._rows_of(channels).view(len(channels), self._size)
        return self._table[rows[:, :, None], rows[:, None, :]], self._table[rows, len(self._table) :]

    def _rows_of(self, channels: NDArray[np.int64]) -> Tensor:
        return (torch.from_numpy(channels)[:, None] * self._size + torch.arange(self._size)).flatten()


def _squares(blocks: Tensor, values: Tensor) -> Tensor:
    """Return trace(values^T block^-1 values) for each of n blocks [size, size] and values [size, outputs]."""
    solved: Tensor = torch.linalg.solve(blocks, values @ values.mT)
    return solved.diagonal(dim1=1, dim2=2).sum(dim=1)
