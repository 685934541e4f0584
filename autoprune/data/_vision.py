"""The form in which all data travel: three loaders, their classes and shape, and a hash of their content.

Before: `data.sources`, `data.folder` and `data.user`, which fill it. After: `train`, `score`, `pipeline`.

    data.input_shape, data.classes, len(data.train)      # (1, 28, 28), 10, 421
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from autoprune.data._loaders import Loader


@dataclass(frozen=True)
class VisionData:
    """Loaders of the training, validation and test part (None where there is none).

    `input_shape` is (C, H, W); `fingerprint` is the sha256 of the content, hexadecimal: of every sample where
    the set is in memory, of names and sizes for a folder; for the user's loaders, of the classes, how many
    training samples there are, and every validation sample. `augmentation` tells what changes training
    images, which the fingerprint does not. `plain` is the training part without these changes; None if only
    its own loader could leave them out.
    """

    name: str
    train: Loader
    val: Loader
    test: Loader | None
    classes: int
    input_shape: tuple[int, int, int]
    fingerprint: str
    augmentation: str = "their loader"
    plain: Loader | None = None

    @property
    def unchanged_train(self) -> Loader:
        """The training part without random changes, or as its own loader gives it."""
        return self.plain or self.train


@dataclass(frozen=True)
class LoadOptions:
    """What a user may choose about any data set; `data.load` documents each."""

    folder: Path | None = None
    batch_size: int = 128
    val_fraction: float = 0.1
    seed: int = 0
    device: str = "cpu"
    augment: bool = True
    image_size: int | None = None
    workers: int = 2
    validation: str | None = None
