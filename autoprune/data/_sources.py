"""Data sets that fit in memory, as uint8 images and int64 labels.

To add a data set, write one function, one row in SOURCES and one row in `autoprune.data.DATASETS`.

    arrays = fashion_mnist("data")
    arrays.train.images.shape        # [60000, 1, 28, 28]
"""

from __future__ import annotations

import gzip
import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from autoprune.data._loaders import Augment
from autoprune.errors import DataError, summary_of

DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Folder in which Debian's package dataset-fashion-mnist installs the four files."""

FASHION_MNIST = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
"""The names of its classes."""


@dataclass(frozen=True)
class Part:
    """Images, uint8 [n, C, H, W], and their labels, int64 [n]."""

    images: Tensor
    labels: Tensor


@dataclass(frozen=True)
class Arrays:
    """A data set in memory. The validation part is split off `train`, and `augment` suits its images."""

    train: Part
    test: Part
    class_names: tuple[str, ...]
    augment: Augment

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


def digits(folder: Path) -> Arrays:
    """Read the 8x8 digits of scikit-learn (1,797 samples), of which a fixed fifth is the test part."""
    from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # ships no types

    bunch = load_digits()
    images = torch.from_numpy(np.round(bunch.images * (255 / 16)).astype(np.uint8))[:, None]
    labels = torch.from_numpy(bunch.target.astype(np.int64))
    train, test = split(labels, fraction=0.2, seed=0)
    return Arrays(
        train=Part(images[train], labels[train]),
        test=Part(images[test], labels[test]),
        class_names=tuple(map(str, range(10))),
        augment=Augment(pad=1),
    )


def fashion_mnist(folder: Path) -> Arrays:
    """Read Fashion-MNIST from idx files in `folder` or Debian's package, or download it by torchvision."""
    candidates = (folder, folder / "FashionMNIST" / "raw", folder / "fashion-mnist", DEBIAN_FASHION_MNIST)
    for place in candidates:
        if _idx_file(place, "train-images-idx3-ubyte") is not None:
            train, test = (
                Part(
                    torch.from_numpy(_read_idx(place, f"{prefix}-images-idx3-ubyte", 3))[:, None],
                    torch.from_numpy(_read_idx(place, f"{prefix}-labels-idx1-ubyte", 1).astype(np.int64)),
                )
                for prefix in ("train", "t10k")
            )
            break
    else:
        train, test, _ = _from_torchvision("FashionMNIST", folder)
    return Arrays(train, test, FASHION_MNIST, Augment(pad=2, flip=True))


def cifar10(folder: Path) -> Arrays:
    """Read CIFAR-10 with torchvision, which downloads it if `folder` does not contain it."""
    return Arrays(*_from_torchvision("CIFAR10", folder), Augment(pad=4, flip=True))


def cifar100(folder: Path) -> Arrays:
    """Read CIFAR-100 with torchvision, which downloads it if `folder` does not contain it."""
    return Arrays(*_from_torchvision("CIFAR100", folder), Augment(pad=4, flip=True))


SOURCES: Mapping[str, Callable[[Path], Arrays]] = {
    "digits": digits,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
    "cifar100": cifar100,
}


def split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples into a kept and a held-out share, class by class.

    Args:
        labels: int64 [n].
        fraction: share of each class that is held out, rounded to whole samples.
        seed: seed of the split.

    Returns:
        Sorted int64 indices of the kept samples, and of the held-out samples.
    """
    held_out = []
    values = labels.numpy()
    order = np.random.default_rng([seed, len(values)]).permutation(len(values))
    for label in np.unique(values):
        members = order[values[order] == label]
        held_out.append(members[: round(fraction * len(members))])
    mask = np.zeros(len(values), dtype=bool)
    mask[np.concatenate(held_out)] = True
    return torch.from_numpy(np.flatnonzero(~mask)), torch.from_numpy(np.flatnonzero(mask))


def _from_torchvision(class_name: str, folder: Path) -> tuple[Part, Part, tuple[str, ...]]:
    """Return the training part, the test part and the names of the classes."""
    from torchvision import datasets  # type: ignore[import-untyped]  # ships no types

    dataset_class: Callable[..., Any] = getattr(datasets, class_name)
    parts = []
    for train in (True, False):
        try:
            dataset = dataset_class(str(folder), train=train, download=True)
        except (OSError, RuntimeError, EOFError, ValueError) as error:
            raise DataError(
                f"data.folder {folder}: {class_name} was not found and cannot be downloaded "
                f"({summary_of(error)})."
            ) from error
        images = torch.as_tensor(dataset.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        parts.append(Part(images, torch.as_tensor(dataset.targets, dtype=torch.int64)))
    return parts[0], parts[1], tuple(dataset.classes)


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_idx(folder: Path, name: str, dimensions: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Read one idx file of unsigned bytes, gzipped or not."""
    path = _idx_file(folder, name)
    if path is None:
        raise DataError(f"data.folder {folder}: {name} (or {name}.gz) is missing.")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: it is corrupt ({error}).") from error
    start = 4 + 4 * dimensions
    shape = tuple(np.frombuffer(content[4:start], ">i4").tolist()) if len(content) >= start else ()
    if content[:4] != bytes([0, 0, 8, dimensions]) or len(content) - start != math.prod(shape):
        raise DataError(f"{path}: it is corrupt, expected an idx file of bytes with {dimensions} dimensions.")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()
