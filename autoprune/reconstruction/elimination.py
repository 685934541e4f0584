"""Backward elimination: the order in which channels go if the readers are refitted after each removal.

order = eliminate([Reader(second, weight, index)], width=64)       # the first to go comes first
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.reconstruction.leastsquares import RIDGE


@dataclass(frozen=True, eq=False)
class Reader:
    """One layer, or one group of a grouped one, that reads the channels.

    Attributes:
        moment: float64 [patch, patch], the second moment of its inputs, about the mean if a constant is
            fitted too.
        weight: float64 [outputs, patch].
        index: int64 [width, m], the positions of each channel in a patch.
        total: mean square of the whole layer's outputs, of which the error is a share; None for that of the
            outputs that these channels alone give.
    """

    moment: Tensor
    weight: Tensor
    index: Tensor
    total: float | None = None


@dataclass(frozen=True, eq=False)
class Elimination:
    """How channels were removed.

    Attributes:
        order: int64 [width], the channels, the first to be removed first; the last is never removed.
        errors: float64 [width], the error once each is removed, as a sum over readers of the share of the
            output's mean square that is lost; the last is that of no channel at all.
    """

    order: NDArray[np.int64]
    errors: NDArray[np.float64]


def eliminate(readers: Sequence[Reader], width: int, *, ridge: float = RIDGE) -> Elimination:
    """Remove channels one at a time, each time the one that costs the refitted readers the least.

    Readers' errors are shares of the mean square of their outputs, so that no layer counts for its scale.

    Args:
        readers: all that read the channels.
        width: number of channels.
        ridge: added to each moment's diagonal, as a share of its mean.

    Reference: Hassibi and Stork, Second order derivatives for network pruning: Optimal Brain Surgeon, NIPS
    1992, for the update; Meng et al., OSSCAR, ICML 2024, section 3, for whole channels. Here all readers of a
    group of channels decide together.
    """
    states = [_State(reader, ridge) for reader in readers]
    alive = np.arange(width)
    order, errors = np.empty(width, np.int64), np.empty(width)
    lost = 0.0
    for step in range(width):
        costs = np.sum([state.costs() for state in states], axis=0)
        place = int(costs.argmin())
        lost += float(costs[place])
        order[step], errors[step] = alive[place], lost
        alive = np.delete(alive, place)
        if len(alive):
            for state in states:
                state.remove(place)
    return Elimination(order, errors)


class _State:
    """A reader without the channels removed so far: the inverse of its moment and its refitted weight.

    Both hold the channels in the order of those that are left, m positions each.
    """

    def __init__(self, reader: Reader, ridge: float) -> None:
        positions = reader.index.flatten()
        moment = reader.moment[positions[:, None], positions]
        strength = ridge * float(moment.diagonal().mean())
        identity = torch.eye(len(moment), dtype=moment.dtype)
        # Inputs that are all zero leave nothing to invert, and cost nothing to remove.
        self.inverse = torch.linalg.inv(moment + (strength or 1.0) * identity)
        self.weight = reader.weight[:, positions].T.contiguous()
        self._size = reader.index.shape[1]
        total = reader.total
        self._total = (float((self.weight * (moment @ self.weight)).sum()) if total is None else total) or 1.0

    def costs(self) -> NDArray[np.float64]:
        """Return what the removal of each channel that is left adds to the error, [channels]."""
        size = self._size
        count = len(self.inverse) // size
        blocks = self.inverse.view(count, size, count, size).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        weights = self.weight.view(count, size, -1)
        added = (weights * torch.linalg.solve(blocks, weights)).sum(dim=(1, 2))
        costs: NDArray[np.float64] = (added / self._total).numpy()
        return costs

    def remove(self, place: int) -> None:
        """Take one channel out and refit the weights of the others."""
        start, stop = place * self._size, (place + 1) * self._size
        block = torch.linalg.inv(self.inverse[start:stop, start:stop])
        column = torch.cat([self.inverse[:start, start:stop], self.inverse[stop:, start:stop]])
        gone = self.weight[start:stop]
        keep = torch.cat([torch.arange(start), torch.arange(stop, len(self.inverse))])
        self.weight = self.weight[keep] - column @ (block @ gone)
        self.inverse = self.inverse[keep[:, None], keep] - column @ block @ column.T
