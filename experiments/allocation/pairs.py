"""Two harder tasks from Fashion-MNIST, and VGG-16-BN of a quarter of the width for them.

    pairs(batch_size=100)["train"]            # 20,000 pairs of garments, 100 classes
    large_pairs(batch_size=100)["train"]      # 10,000 pairs of twice the size
    few_labels(batch_size=100)["train"]       # 6,000 garments, 10 classes

A pair is two garments side by side, each of 14 x 14 pixels with a black frame of one pixel, or of twice that
size. Its class is 10 x left + right. The garments of the training, validation and test pairs are different
ones. All draws have a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.data import Batch
from autoprune.data._loaders import Augment, DeviceLoader
from autoprune.data._memory import EVALUATION_BATCH, channel_statistics
from autoprune.data._sources import Part, fashion_mnist
from autoprune.zoo.vgg import VGG
from experiments.methods.data import Reshuffled

GARMENTS = 50_000
"""Training garments. The other 10,000 are for validation."""

PAIRS = (20_000, 10_000, 10_000)
"""Pairs for training, validation and test."""

LARGE_PAIRS = (10_000, 10_000, 10_000)
"""Pairs of twice the size, as many as an epoch of MobileNetV3-small trains on in ten seconds."""

FEW = 6_000
"""Labelled training garments: a tenth."""

QUARTER = 0.25


def pairs(batch_size: int) -> Mapping[str, Any]:
    """Return loaders of images [n, 1, 16, 32] and labels from 0 to 99."""
    return _paired(PAIRS, batch_size, shrink=2)


def large_pairs(batch_size: int) -> Mapping[str, Any]:
    """Return loaders of images [n, 1, 32, 64] and labels from 0 to 99."""
    return _paired(LARGE_PAIRS, batch_size, shrink=1)


def few_labels(batch_size: int) -> Mapping[str, Any]:
    """Return loaders of images [n, 1, 28, 28] and labels from 0 to 9, with few training images."""
    train, val, test = _garments()
    few = Part(train.images[:FEW], train.labels[:FEW])
    return {**_loaders([few, val, test], batch_size, Augment(pad=2, flip=True)), "classes": 10}


def quarter_vgg(classes: int) -> nn.Module:
    """Return VGG-16-BN with a quarter of the channels, for images of one channel."""
    return VGG(classes, 1, share=QUARTER)


def _garments() -> tuple[Part, Part, Part]:
    """Return Fashion-MNIST in a shuffled order, divided into training, validation and test garments."""
    arrays = fashion_mnist(Path("data"))
    order = torch.randperm(len(arrays.train.labels), generator=torch.Generator().manual_seed(0))
    chosen = (order[:GARMENTS], order[GARMENTS:])
    train, val = (Part(arrays.train.images[each], arrays.train.labels[each]) for each in chosen)
    return train, val, arrays.test


def _paired(counts: tuple[int, int, int], batch_size: int, shrink: int) -> dict[str, Any]:
    """Return loaders of pairs of garments.

    Args:
        counts: pairs for training, validation and test.
        batch_size: of the training.
        shrink: the size of the garments is divided by it.
    """
    garments = zip(_garments(), counts, strict=True)
    parts = [_pairs(part, count, seed, shrink) for seed, (part, count) in enumerate(garments)]
    return {**_loaders(parts, batch_size, Augment(pad=2 // shrink)), "classes": 100}


def _pairs(part: Part, count: int, seed: int, shrink: int) -> Part:
    """Draw pairs of the garments of a part."""
    generator = torch.Generator().manual_seed(seed)
    left, right = torch.randint(len(part.labels), (2, count), generator=generator)
    small = functional.avg_pool2d(part.images.float(), shrink).round().byte()
    framed = functional.pad(small, [2 // shrink] * 4)
    labels: Tensor = 10 * part.labels[left] + part.labels[right]
    return Part(torch.cat([framed[left], framed[right]], dim=3), labels)


def _loaders(parts: list[Part], batch_size: int, augment: Augment) -> dict[str, Iterable[Batch]]:
    """Return the loaders "train", "val" and "test", normalised by the statistics of the training images."""
    mean, std = channel_statistics(parts[0].images)
    loaders = [
        DeviceLoader(
            part.images,
            part.labels,
            batch_size=batch_size if is_train else EVALUATION_BATCH,
            device="cpu",
            mean=mean,
            std=std,
            shuffle=is_train,
            augment=augment if is_train else None,
        )
        for part, is_train in zip(parts, (True, False, False), strict=True)
    ]
    return {"train": Reshuffled(loaders[0]), "val": loaders[1], "test": loaders[2]}
