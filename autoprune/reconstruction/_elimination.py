"""Backward elimination: remove channels one by one, and refit the layers that read them after each removal.

Example:
    order = eliminate([Reader(second, weight, index)], width=64).order       # the first removed comes first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.reconstruction._leastsquares import RIDGE

COLLECTED = 64
"""Number of removed positions whose updates are collected and then applied in one product."""


@dataclass(frozen=True, eq=False)
class Reader:
    """A layer that reads the channels, or one group of such a layer with groups.

    Attributes:
        moment: float64 [patch, patch], second moment of its inputs, about the mean if a constant is fitted
            too.
        weight: float64 [outputs, patch].
        index: int64 [width, m], positions of each channel in a patch.
        total: mean square of the whole layer's outputs, of which the error is a share. None means the mean
            square of the outputs from these channels alone.
        target: float64 [outputs, patch], mean product of the target outputs with the inputs. None means that
            the layer's own outputs are the target.
    """

    moment: Tensor
    weight: Tensor
    index: Tensor
    total: float | None = None
    target: Tensor | None = None

    def system(self, ridge: float) -> tuple[Tensor, Tensor, float]:
        """Return the moment with its ridge, the weight [positions, outputs] and the outputs' mean square.

        The positions are ordered channel by channel.
        """
        positions = self.index.flatten()
        moment = self.moment[positions[:, None], positions]
        weight = self.weight[:, positions].T.contiguous()
        total = self.total
        if total is None:
            total = float((weight * (moment @ weight)).sum())
        strength = ridge * float(moment.diagonal().mean())
        # If all inputs are zero, any ridge makes the moment invertible, and removing them costs nothing.
        moment.diagonal().add_(strength or 1.0)
        return moment, weight, total or 1.0


@dataclass(frozen=True, eq=False)
class Elimination:
    """The result of an elimination.

    Attributes:
        order: int64 [width], the channels in order of removal. The last one is never removed.
        errors: float64 [width], the error after each removal: the sum over readers of the lost share of the
            output's mean square. The last entry is the error without any channel.
    """

    order: NDArray[np.int64]
    errors: NDArray[np.float64]


def eliminate(readers: Sequence[Reader], width: int, *, ridge: float = RIDGE) -> Elimination:
    """Remove channels one at a time, always the one that adds least to the error of the refitted readers.

    The error of a reader is a share of the mean square of its outputs, so layers of all scales count alike.

    Args:
        readers: all layers that read the channels.
        width: number of channels.
        ridge: added to each moment's diagonal, as a share of its mean.

    Reference: Hassibi and Stork, Second order derivatives for network pruning: Optimal Brain Surgeon, NIPS
    1992 (the update), and Meng et al., OSSCAR, ICML 2024, section 3 (whole channels). Here all readers of a
    group of channels decide together.
    """
    states = [_State(reader, ridge) for reader in readers]
    order, errors = np.empty(width, np.int64), np.empty(width)
    lost = 0.0
    for step in range(width):
        costs = np.sum([state.costs() for state in states], axis=0)
        channel = int(costs.argmin())
        # A cost is the exact increase over the error with the weights refitted so far, so costs add up.
        lost += float(costs[channel])
        order[step], errors[step] = channel, lost
        if step + 1 < width:
            for state in states:
                state.remove(channel)
    return Elimination(order, errors)


def errors_along(
    readers: Sequence[Reader], order: NDArray[np.int64], *, ridge: float = RIDGE
) -> NDArray[np.float64]:
    """Return the errors after each removal in a known order, like `Elimination.errors`.

    One Cholesky factorisation of each reader gives all of them. If the moment is L L^T with the channels that
    stay longest first, weight @ L splits the output into the parts that the earlier channels do not explain.

    Args:
        readers: all layers that read the channels.
        order: int64 [width], the channels in order of removal.
        ridge: as in `eliminate`.
    """
    errors = np.zeros(len(order))
    kept_first = torch.from_numpy(order[::-1].copy())
    for reader in readers:
        moment, weight, total = reader.system(ridge)
        size = reader.index.shape[1]
        positions = (kept_first[:, None] * size + torch.arange(size)).flatten()
        factor = torch.linalg.cholesky(moment[positions[:, None], positions])
        parts = (weight[positions].T @ factor).square().sum(dim=0).view(-1, size).sum(dim=1)
        # The channel that is removed first is the last part.
        errors += np.cumsum(parts.numpy()[::-1]) / total
    return errors


class _State:
    """A reader without the channels removed so far: the inverse of its moment and its refitted weight.

    A removal subtracts a product of two narrow matrices from the inverse. The products are collected and
    subtracted together, which is far faster than one at a time. Then removed channels are dropped as well.
    """

    def __init__(self, reader: Reader, ridge: float) -> None:
        width, self._size = reader.index.shape
        moment, self._weight, self._total = reader.system(ridge)
        self._inverse = torch.linalg.inv(moment)
        self._blocks = _diagonal_blocks(self._inverse, self._size)
        self._columns: list[Tensor] = []
        self._solved: list[Tensor] = []
        self._channels = np.arange(width)
        self._alive = np.ones(width, dtype=bool)

    def costs(self) -> NDArray[np.float64]:
        """Return the error [width] that the removal of each channel adds: infinity for removed ones."""
        # Of a channel with inputs B: trace(W_B^T ((H^-1)_BB)^-1 W_B), with the moment H and the weight W.
        weights = self._weight.view(-1, self._size, self._weight.shape[1])
        if self._size == 1:
            added = weights.square().sum(dim=(1, 2)) / self._blocks.flatten()
        else:
            squares = weights @ weights.mT
            added = torch.linalg.solve(self._blocks, squares).diagonal(dim1=1, dim2=2).sum(dim=1)
        costs = np.full(len(self._alive), np.inf)
        costs[self._channels] = added.numpy() / self._total
        costs[~self._alive] = np.inf
        return costs

    def remove(self, channel: int) -> None:
        """Remove one channel and refit the weights of the others."""
        place = int(np.searchsorted(self._channels, channel))
        start, stop = place * self._size, (place + 1) * self._size
        # Without B, the inverse is H^-1 - (H^-1)_:B ((H^-1)_BB)^-1 (H^-1)_B:. The stored one still lacks the
        # collected products, so the column is brought up to date first.
        column = self._inverse[:, start:stop].clone()
        for earlier, solved in zip(self._columns, self._solved, strict=True):
            column -= earlier @ solved[start:stop].T
        solved = torch.linalg.solve(self._blocks[place].mT, column.mT).mT
        self._weight -= solved @ self._weight[start:stop]
        shape = (-1, self._size, self._size)
        # The costs read only the diagonal blocks of the inverse, so these alone are kept up to date.
        self._blocks -= column.view(shape) @ solved.view(shape).mT
        self._alive[channel] = False
        # A removed block is near singular, and `costs` solves with all blocks at once.
        self._blocks[place] = torch.eye(self._size, dtype=column.dtype)
        self._columns.append(column)
        self._solved.append(solved)
        if len(self._columns) * self._size >= COLLECTED:
            self._subtract()

    def _subtract(self) -> None:
        """Subtract the collected products from the inverse, and drop the removed channels."""
        kept = torch.from_numpy(np.flatnonzero(self._alive[self._channels]))
        rows = (kept[:, None] * self._size + torch.arange(self._size)).flatten()
        columns, solved = (torch.cat(each, dim=1)[rows] for each in (self._columns, self._solved))
        self._inverse = self._inverse[rows].index_select(1, rows).addmm_(columns, solved.T, alpha=-1)
        self._weight, self._blocks = self._weight[rows], self._blocks[kept]
        self._channels = self._channels[self._alive[self._channels]]
        self._columns, self._solved = [], []


def _diagonal_blocks(matrix: Tensor, size: int) -> Tensor:
    """Return copies of the square blocks [n, size, size] on the diagonal of a matrix."""
    count = len(matrix) // size
    return matrix.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1).clone()
