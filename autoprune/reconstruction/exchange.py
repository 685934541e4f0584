"""Local search after an elimination: swaps of a kept channel for a removed one that lower the readers' error.

order = eliminate(readers, width=64).order
kept = exchange(readers, order[-16:])           # 16 channels again, at the same error or a lower one
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.reconstruction.elimination import Reader, diagonal_blocks
from autoprune.reconstruction.leastsquares import RIDGE

SWAPS = 32
"""Swaps at most. Groups of up to 64 channels needed 7."""

CANDIDATES = 8
"""Removed channels that are tried for each swap: those that would lower the error most if they came back."""

_LEAST_FALL = 1e-9
"""Fall of the error, as a share of the outputs' mean square, that makes a swap worth while."""


def exchange(
    readers: Sequence[Reader], kept: Sequence[int] | NDArray[np.int64], *, ridge: float = RIDGE
) -> NDArray[np.int64]:
    """Swap kept and removed channels, one pair at a time, as long as the refitted readers' error falls.

    Each swap is the best one among the pairs of a kept channel and a candidate.

    Args:
        readers: all that read the channels.
        kept: the channels to begin with.
        ridge: added to each moment's diagonal, as a share of its mean.

    Returns:
        As many channels, sorted. Their error, as `eliminate` defines it, is at most that of `kept`.

    Reference: Meng et al., OSSCAR, ICML 2024, section 3 (local search). It swaps several channels at once.
    """
    fits = [_Fit(reader, ridge) for reader in readers]
    inside = np.sort(np.asarray(kept, dtype=np.int64))
    for _ in range(SWAPS):
        for fit in fits:
            fit.settle(inside)
        swap = _best_swap(fits, inside)
        if swap is None:
            break
        added, place = swap
        inside = np.sort(np.append(np.delete(inside, place), added))
    return inside


def _best_swap(fits: Sequence[_Fit], inside: NDArray[np.int64]) -> tuple[int, int] | None:
    """Return the channel to add and the place of the one to remove; None if no pair lowers the error."""
    outside = np.setdiff1d(np.arange(fits[0].width), inside)
    if not len(outside) or not len(inside):
        return None
    gains = np.sum([fit.gains(outside) for fit in fits], axis=0)
    best, least = None, -_LEAST_FALL
    for candidate in np.argsort(-gains, kind="stable")[:CANDIDATES]:
        costs = np.sum([fit.costs_beside(int(outside[candidate])) for fit in fits], axis=0)
        change = float(costs.min() - gains[candidate])
        if change < least:
            best, least = (int(outside[candidate]), int(costs.argmin())), change
    return best


class _Fit:
    """A reader refitted on some channels: the inverse of their moment and its weight.

    Attributes:
        width: number of channels, kept or not.
    """

    def __init__(self, reader: Reader, ridge: float) -> None:
        self._moment, weight, self._total = reader.system(ridge)
        self._target = self._moment @ weight
        self.width, self._size = reader.index.shape

    def settle(self, channels: NDArray[np.int64]) -> None:
        """Refit on these channels."""
        self._rows = self._rows_of(channels)
        self._inverse = torch.linalg.inv(self._moment[self._rows[:, None], self._rows])
        self._weight = self._inverse @ self._target[self._rows]

    def gains(self, channels: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return by how much the error would fall with each of these channels beside the fitted ones."""
        rows = self._rows_of(channels)
        shared = self._moment[rows[:, None], self._rows]
        residual = (self._target[rows] - shared @ self._weight).view(len(channels), self._size, -1)
        explained = (shared @ self._inverse).view(len(channels), self._size, -1)
        own = self._moment[rows.view(len(channels), -1, 1), rows.view(len(channels), 1, -1)]
        blocks = own - explained @ shared.view(len(channels), self._size, -1).mT
        gains: NDArray[np.float64] = _squares(blocks, residual).numpy()
        return gains / self._total

    def costs_beside(self, channel: int) -> NDArray[np.float64]:
        """Return what the removal of each fitted channel would cost if this one were there too."""
        rows = self._rows_of(np.array([channel]))
        shared = self._moment[self._rows[:, None], rows]
        explained = self._inverse @ shared
        schur = torch.linalg.inv(self._moment[rows[:, None], rows] - shared.mT @ explained)
        own = schur @ (self._target[rows] - shared.mT @ self._weight)
        count = len(self._rows) // self._size
        added = (explained @ schur).view(count, self._size, -1) @ explained.view(count, self._size, -1).mT
        blocks = diagonal_blocks(self._inverse, self._size) + added
        weights = (self._weight - explained @ own).view(count, self._size, -1)
        costs: NDArray[np.float64] = _squares(blocks, weights).numpy()
        return costs / self._total

    def _rows_of(self, channels: NDArray[np.int64]) -> Tensor:
        return (torch.from_numpy(channels)[:, None] * self._size + torch.arange(self._size)).flatten()


def _squares(blocks: Tensor, values: Tensor) -> Tensor:
    """Return trace(values^T block^-1 values) for each of n blocks [size, size] and values [size, outputs]."""
    solved: Tensor = torch.linalg.solve(blocks, values @ values.mT)
    return solved.diagonal(dim1=1, dim2=2).sum(dim=1)
