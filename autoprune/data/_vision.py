"""`VisionData`: the loaders of a data set, with its classes, its input shape and a hash of its content.

Example:
    data.input_shape, data.classes, len(data.train)      # (1, 28, 28), 10, 421
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.data._loaders import Loader, Prepare


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes an input: its values in [0, 1], less `mean`, over `std`.

    Attributes:
        mean: of each channel.
        std: standard deviation of each channel.
        resize: the shorter side in pixels before the centre crop to the input's size, or None if images have
            that size already.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: int | None = None


@dataclass(frozen=True)
class VisionData:
    """The loaders of a data set.

    Attributes:
        name: name of the data set.
        train: the training part.
        val: the validation part.
        test: the test part, or None.
        classes: number of classes, or 0 if the targets are no labels.
        input_shape: shape of an image, (C, H, W), or () if the inputs are no batch of equal images.
        fingerprint: SHA-256 of the content. It covers all samples of a data set in memory, and the names and
            sizes of the files in a folder. For a user's loaders, it covers the number of classes, the number
            of training samples, and all validation samples.
        augmentation: describes the augmentation of training images, which the fingerprint does not cover.
        plain: the training part without augmentation, or None for a user's loaders.
        class_names: the names of the classes by their numbers, or () if they are not known.
        preprocessing: how images become inputs, or None for a user's loaders.
        example: the inputs of the first validation batch of a user's loaders.
    """

    name: str
    train: Loader
    val: Loader
    test: Loader | None
    classes: int
    input_shape: tuple[int, ...]
    fingerprint: str
    augmentation: str = "their loader"
    plain: Loader | None = None
    class_names: tuple[str, ...] = ()
    preprocessing: Preprocessing | None = None
    example: Any = None

    @property
    def unchanged_train(self) -> Loader:
        """The training part without augmentation, or `train` if there is none."""
        return self.plain or self.train


@dataclass(frozen=True)
class LoadOptions:
    """The options of a data set. `load` documents each of them."""

    folder: Path | None = None
    batch_size: int = 128
    val_fraction: float = 0.1
    seed: int = 0
    device: str = "cpu"
    augment: bool = True
    image_size: int | None = None
    workers: int = 2
    validation: str | None = None
    prepare: Prepare | None = None
