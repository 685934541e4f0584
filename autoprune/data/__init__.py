"""Load data as `VisionData`: named data sets, image folders, or a user's own loaders.

All loaders yield batches of (inputs, targets) on the device.

    data = load("fashion-mnist", batch_size=128, val_fraction=0.1, seed=0)
    for inputs, targets in data.train.batches(seed=0, epoch=0): ...

To add a data set that fits in memory, write one function, one row in SOURCES and one row in DATASETS.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from autoprune.data._fixed_batches import HeldBatches, first_batches, head, spread_samples
from autoprune.data._folder import DEFAULT_IMAGE_SIZE, MEAN, STD, load_folder, picture_size
from autoprune.data._limited import limited
from autoprune.data._loaders import (
    Augment,
    Batch,
    DeviceLoader,
    Loader,
    Prepare,
    StreamLoader,
    endless,
    first_batch,
)
from autoprune.data._memory import load_arrays
from autoprune.data._randomness import (
    from_storable,
    model_seed,
    random_states,
    restore_random_states,
    seeded,
    stream_seed,
    to_storable,
)
from autoprune.data._shares import share_of
from autoprune.data._sources import SOURCES
from autoprune.data._user import UserLoaders, load_user, wrap_loaders
from autoprune.data._vision import LoadOptions, Preprocessing, VisionData
from autoprune.errors import DataError, unknown
from autoprune.support.rows import Row, quoted

__all__ = [
    "DATASETS",
    "DEFAULT_IMAGE_SIZE",
    "MEAN",
    "STD",
    "Augment",
    "Batch",
    "DatasetSpec",
    "DeviceLoader",
    "HeldBatches",
    "LoadOptions",
    "Loader",
    "Prepare",
    "Preprocessing",
    "StreamLoader",
    "UserLoaders",
    "VisionData",
    "endless",
    "first_batch",
    "first_batches",
    "from_storable",
    "head",
    "limited",
    "load",
    "model_seed",
    "picture_size",
    "random_states",
    "restore_random_states",
    "seeded",
    "share_of",
    "spread_samples",
    "stream_seed",
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
        downloads: whether it is downloaded to the folder if it is missing there.
        streams: whether workers read it from files, image by image, scaled to one size. Such a data set has
            its own validation part. Other data sets are held in memory.
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
"""{name: row}. Loaders of the user's own, "package.module:function", need no row."""


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
    prepare: Prepare | None = None,
) -> VisionData:
    """Load a data set by name.

    Args:
        name: a row of DATASETS, or "package.module:function" for a user's own loaders.
        folder: folder of the files, or of their download (default "data"). For the data set "folder", the
            folder that contains train/ and val/.
        batch_size: number of samples in a training batch. Data sets in memory use larger evaluation batches.
        val_fraction: share of the training part that is held out if the data set has no validation part.
        seed: seed of that split.
        device: device of the batches.
        augment: whether to shift, crop and flip training images at random, depending on the data set.
        image_size: height and width in pixels for "folder" (default 224). Other data sets do not accept it.
        workers: number of processes that read an image folder.
        validation: "package.module:function" that returns a loader of validation data, which replaces the
            held-out share.
        prepare: splits a batch of a user's loaders into (inputs, targets).

    Raises:
        ConfigError: if a function cannot be imported.
        DataError: if the name is unknown, files are missing or malformed, a part is empty, values are not
            finite, labels are out of range, or image_size does not apply.
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
        prepare=prepare,
    )
    if ":" not in name and name not in DATASETS:
        raise DataError(unknown("data.name", name, DATASETS, kind="data set"))
    spec = DATASETS.get(name)
    if image_size is not None and (spec is None or not spec.streams):
        scaled = quoted(each for each, row in DATASETS.items() if row.streams)
        raise DataError(
            f'data.image_size: got {image_size}, but "{name}" is not scaled. Leave it out, or use data.name '
            f"= {scaled}."
        )
    return load_user(name, options) if spec is None else spec.load(options)
