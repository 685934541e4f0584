"""The data: named sets, image folders and loaders of the user's own, all as one VisionData.

    data = load("fashion-mnist", batch_size=128, val_fraction=0.1, seed=0)
    for inputs, targets in data.train.batches(seed=0, epoch=0): ...

A new data set that fits in memory is a function and a row in SOURCES, and a row in DATASETS with its traits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.data._fixed_batches import first_batches, spread_samples
from autoprune.data._folder import load_folder
from autoprune.data._loaders import Augment, Batch, DeviceLoader, Loader, StreamLoader, endless, first_batch
from autoprune.data._memory import load_arrays
from autoprune.data._randomness import (
    from_storable,
    model_seed,
    random_states,
    restore_random_states,
    seeded,
    to_storable,
)
from autoprune.data._sources import SOURCES
from autoprune.data._user import UserLoaders, load_user, wrap_loaders
from autoprune.data._vision import LoadOptions, VisionData
from autoprune.errors import DataError, unknown
from autoprune.support.rows import Row, quoted

__all__ = [
    "DATASETS",
    "Augment",
    "Batch",
    "DatasetSpec",
    "DeviceLoader",
    "LoadOptions",
    "Loader",
    "StreamLoader",
    "UserLoaders",
    "VisionData",
    "endless",
    "first_batch",
    "first_batches",
    "from_storable",
    "load",
    "model_seed",
    "random_states",
    "restore_random_states",
    "seeded",
    "spread_samples",
    "to_storable",
    "wrap_loaders",
]


def _in_memory(name: str) -> Callable[[LoadOptions], VisionData]:
    def load_source(options: LoadOptions) -> VisionData:
        return load_arrays(name, SOURCES[name](options.folder or Path("data")), options)

    return load_source


@dataclass(frozen=True)
class DatasetSpec(Row):
    """A row of DATASETS.

    Attributes:
        load: function of the options.
        downloads: whether it is downloaded into the folder, if it is not there.
        streams: whether workers read it from files, image by image, scaled to one size. It then has a
            validation part of its own. Others are held in memory.
    """

    load: Callable[[LoadOptions], VisionData]
    downloads: bool = True
    streams: bool = False


DATASETS: Mapping[str, DatasetSpec] = {
    "digits": DatasetSpec(
        _in_memory("digits"), downloads=False, about="8x8 digits, which come with scikit-learn"
    ),
    "fashion-mnist": DatasetSpec(
        _in_memory("fashion-mnist"), about="28x28 photographs of clothes, 10 classes"
    ),
    "cifar10": DatasetSpec(_in_memory("cifar10"), about="32x32 photographs, 10 classes"),
    "cifar100": DatasetSpec(_in_memory("cifar100"), about="32x32 photographs, 100 classes"),
    "folder": DatasetSpec(
        load_folder,
        downloads=False,
        streams=True,
        about="train/ and val/ in `folder`, with one folder of images for each class",
    ),
}
"""Loaders of the user's own, "package.module:function", need no row."""


def load(
    name: str,
    *,
    folder: str | Path | None = None,
    batch_size: int = 128,
    val_fraction: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
    augment: bool = True,
    image_size: int | None = None,
    workers: int = 2,
    validation: str | None = None,
) -> VisionData:
    """Load a data set by name.

    Args:
        name: a row of DATASETS, "folder", or "package.module:function" for the user's own loaders.
        folder: where the files are, or are downloaded to (default "data"); for "folder", what holds train/
            and val/.
        batch_size: samples a training batch; a set in memory is evaluated in larger ones.
        val_fraction: share of the training part that is held out, where the set has no validation part.
        seed: of that split.
        device: where the batches are delivered.
        augment: whether training images are shifted, cropped and flipped at random, as suits the set.
        image_size: pixels a side for "folder" (default 224), and for nothing else.
        workers: processes that read an image folder.
        validation: "package.module:function" that returns a loader to validate with, instead of a
            held-out share.

    Raises:
        ConfigError: a function that cannot be imported.
        DataError: unknown name, missing or malformed files, an empty part, NaN, labels out of range; or an
            image_size that nothing reads.
    """
    options = LoadOptions(
        folder=Path(folder) if folder is not None else None,
        batch_size=batch_size,
        val_fraction=val_fraction,
        seed=seed,
        device=device,
        augment=augment,
        image_size=image_size,
        workers=workers,
        validation=validation,
    )
    if ":" not in name and name not in DATASETS:
        raise DataError(unknown("data.name", name, DATASETS, kind="data set"))
    spec = DATASETS.get(name)
    if image_size is not None and (spec is None or not spec.streams):
        scaled = quoted(each for each, row in DATASETS.items() if row.streams)
        raise DataError(
            f'data.image_size: got {image_size}, but "{name}" is not scaled; only data.name = {scaled} is: '
            "leave it out."
        )
    return load_user(name, options) if spec is None else spec.load(options)
