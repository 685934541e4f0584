"""A part of Fashion-MNIST: about 12,000 training and 3,000 validation images, and the whole test part.

A config names one of the functions: `loaders = "experiments.methods.data:plain"`. The parts are the same
images for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor

from autoprune.data import Batch, Loader, LoadOptions
from autoprune.data._memory import load_arrays
from autoprune.data._sources import Part, fashion_mnist

TRAIN, VAL = 12_000, 3_000


class Reshuffled:
    """A training part in memory, in another order and with other shifts each time that it is read."""

    def __init__(self, part: Loader) -> None:
        self._part = part

    def __len__(self) -> int:
        """Return the number of batches."""
        return len(self._part)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches. The order depends on the global random state, which training seeds."""
        return self._part.batches(int(torch.randint(2**31, ())), 0)


def plain(batch_size: int) -> Mapping[str, Any]:
    """Return the parts at 28 x 28 pixels."""
    return _parts(batch_size, lambda images: images)


def padded(batch_size: int) -> Mapping[str, Any]:
    """Return the parts at 32 x 32 pixels, with a black frame, for nets that divide sizes by 32."""
    return _parts(batch_size, lambda images: functional.pad(images, (2, 2, 2, 2)))


def halved(batch_size: int) -> Mapping[str, Any]:
    """Return the parts at 14 x 14 pixels, means of 2 x 2 pixels, for nets that cost too much otherwise."""
    return _parts(batch_size, lambda images: functional.avg_pool2d(images.float(), 2).round().byte())


def _parts(batch_size: int, change: Callable[[Tensor], Tensor]) -> Mapping[str, Any]:
    arrays = fashion_mnist(Path("data"))
    order = torch.randperm(len(arrays.train.labels), generator=torch.Generator().manual_seed(0))
    chosen = order[: TRAIN + VAL]
    arrays = replace(
        arrays,
        train=Part(change(arrays.train.images[chosen]), arrays.train.labels[chosen]),
        test=Part(change(arrays.test.images), arrays.test.labels),
    )
    options = LoadOptions(batch_size=batch_size, val_fraction=VAL / (TRAIN + VAL))
    data = load_arrays("fashion-mnist", arrays, options)
    return {"train": Reshuffled(data.train), "val": data.val, "test": data.test, "classes": data.classes}
