"""A few batches of a part, drawn once and kept: what many short evaluations look at, equal for all of them.

Before: the loaders; after: `sensitivity`, which recalibrates and evaluates dozens of cut models in a row.

    calibration = first_batches(data.train, 2, seed=0)
    images = spread_samples(data.val, 500)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch

from autoprune.data._loaders import Batch, Loader, endless

MOST_ELEMENTS = 2**26
"""Numbers that `spread_samples` keeps at most: 256 MB of images."""


class HeldBatches:
    """Batches in memory, as a loader: every epoch is the same."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = tuple(batches)

    @property
    def samples(self) -> int:
        """Number of samples in all batches."""
        return sum(len(targets) for _, targets in self._batches)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        return iter(self._batches)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the batches, whatever seed and epoch are."""
        return iter(self._batches)


def first_batches(loader: Loader, count: int, *, seed: int) -> HeldBatches:
    """Keep the first batches of a loader under a seed, going on with its next epochs where one has fewer."""
    return HeldBatches(list(itertools.islice(endless(loader, seed), count)))


def spread_samples(loader: Loader, most: int) -> HeldBatches:
    """Keep at most so many samples of a part, spread evenly over it: a part may be sorted by class.

    Large images are kept in smaller number, so that all together have at most `MOST_ELEMENTS` numbers.
    """
    kept: list[Batch] = []
    step, start = 0.0, 0
    for inputs, targets in loader:
        if not step:
            most = max(1, min(most, MOST_ELEMENTS // max(1, inputs[0].numel())))
            step = max(1.0, loader.samples / most)
        # Sample i of the part is kept where a multiple of the step falls on it.
        first, last = -int(-start // step), -int(-(start + len(targets)) // step)
        places = [int(step * number) - start for number in range(first, last)]
        index = torch.tensor([place for place in places if 0 <= place < len(targets)], dtype=torch.int64)
        if len(index):
            index = index.to(targets.device)
            kept.append((inputs[index], targets[index]))
        start += len(targets)
    return HeldBatches(kept)
