"""Data: named sets, image folders and the user's own loaders, all as one VisionData.

Before: names and folders from a config. After: `train` and `score`, which see only loaders of
(inputs, targets) on the device.

    data = load("fashion-mnist", batch_size=128, val_fraction=0.1, seed=0)
    for inputs, targets in data.train.batches(seed=0, epoch=0): ...
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
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

__all__ = [
    "DATASETS",
    "Augment",
    "Batch",
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


DATASETS: Mapping[str, Callable[[LoadOptions], VisionData]] = {
    **{name: _in_memory(name) for name in SOURCES},
    "folder": load_folder,
}
"""Name -> function of the options; "module:function" loaders need no row."""


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
    if image_size is not None and name != "folder":
        raise DataError(
            f'data.image_size: got {image_size}, but "{name}" is not scaled; only data.name = "folder" is: '
            "leave it out."
        )
    if ":" in name:
        return load_user(name, options)
    return DATASETS[name](options)
