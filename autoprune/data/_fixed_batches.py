"""Batches that are drawn once and kept in memory, so that many short evaluations use the same ones.

Example:
    calibration = first_batches(data.train, 2, seed=0)
    images = spread_samples(data.val, 500)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from autoprune.data._loaders import Batch, Loader, endless
from autoprune.support.structures import samples_in, tensors_in

MOST_ELEMENTS = 2**26
"""Maximum number of elements that `spread_samples` keeps: 256 MB of images."""


class HeldBatches:
    """A loader of batches in memory. All epochs are equal."""

    def __init__(self, batches: Sequence[Batch]) -> None:
        self._batches = tuple(batches)

    @property
    def samples(self) -> int:
        """Number of samples in all batches."""
        return sum(samples_in(inputs) for inputs, _ in self._batches)

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches."""
        return iter(self._batches)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the batches. They do not depend on seed and epoch."""
        return iter(self._batches)


def head(batch: Batch, samples: int) -> Batch:
    """Return the first samples of a batch, or the whole batch if it is no pair of tensors."""
    inputs, targets = batch
    is_plain = isinstance(inputs, Tensor) and isinstance(targets, Tensor)
    return (inputs[:samples], targets[:samples]) if is_plain else batch


def first_batches(loader: Loader, count: int, *, seed: int) -> HeldBatches:
    """Keep the first `count` batches of a loader under a seed. They may span several epochs."""
    return HeldBatches(list(itertools.islice(endless(loader, seed), count)))


def spread_samples(loader: Loader, most: int) -> HeldBatches:
    """Keep at most `most` samples, spread evenly over a part, because a part may be sorted by class.

    The kept samples together have at most `MOST_ELEMENTS` elements. Of batches that are no pairs of tensors,
    whole batches are kept.
    """
    kept: list[Batch] = []
    step, start = 0.0, 0
    for inputs, targets in loader:
        count = samples_in(inputs)
        if not step:
            elements = sum(tensor.numel() for tensor in tensors_in(inputs)) // max(1, count)
            most = max(1, min(most, MOST_ELEMENTS // max(1, elements)))
            step = max(1.0, loader.samples / most)
        if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
            if start >= step * sum(samples_in(each) for each, _ in kept):
                kept.append((inputs, targets))
            start += count
            continue
        # Sample i of the part is kept if i is a multiple of the step, rounded down.
        first, last = -int(-start // step), -int(-(start + count) // step)
        places = [int(step * number) - start for number in range(first, last)]
        index = torch.tensor([place for place in places if 0 <= place < count], dtype=torch.int64)
        if len(index):
            index = index.to(targets.device)
            kept.append((inputs[index], targets[index]))
        start += count
    return HeldBatches(kept)
