"""Data of which only the first batches of each part are read, for trial runs.

Example:
    data = limited(load("cifar10"), 256)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from autoprune.data._loaders import Batch, Loader
from autoprune.data._vision import VisionData


def limited(data: VisionData, most: int) -> VisionData:
    """Return data of which each part ends after `most` samples, rounded up to whole batches.

    The fingerprint stays that of the whole data, which the note on a checkpoint names.
    """
    parts: dict[str, Any] = {
        part: LimitedLoader(loader, most)
        for part in ("train", "val", "test", "plain")
        if (loader := getattr(data, part)) is not None
    }
    return replace(data, **parts)


class LimitedLoader:
    """The first batches of each epoch of a loader."""

    def __init__(self, loader: Loader, most: int) -> None:
        self._loader = loader
        size = max(1, loader.samples // len(loader))
        self._batches = min(len(loader), math.ceil(most / size))
        self._samples = min(loader.samples, self._batches * size)

    @property
    def samples(self) -> int:
        """Number of samples in an epoch, an estimate if batches differ in their sizes."""
        return self._samples

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of epoch 0 under seed 0."""
        return self.batches(0, 0)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield the first batches of the loader under (seed, epoch)."""
        return itertools.islice(self._loader.batches(seed, epoch), self._batches)
