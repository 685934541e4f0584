"""Turn arrays in memory into loaders on the device: split off the validation part, normalise, hash.

Example:
    data = load_arrays("digits", digits(Path("data")), LoadOptions(batch_size=64))
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from autoprune.data._loaders import Augment, DeviceLoader, StreamLoader
from autoprune.data._sources import Arrays, Part, split
from autoprune.data._user import load_user_validation
from autoprune.data._vision import LoadOptions, Preprocessing, VisionData
from autoprune.errors import DataError

EVALUATION_BATCH = 250


def load_arrays(name: str, arrays: Arrays, options: LoadOptions) -> VisionData:
    """Hold out the validation part and move all parts to the device.

    Raises:
        DataError: if a part is empty, or its labels do not fit its images and classes.
    """
    for word, part in (("train", arrays.train), ("test", arrays.test)):
        _check(f"data {name}: {word}", part, arrays.classes)
    train_labels = arrays.train.labels
    if options.validation is None:
        validation, identity = None, f"{name} {options.val_fraction} {options.seed}"
        kept, held_out = _split(name, train_labels, options)
    else:
        validation, digest = _load_validation(options.validation, arrays, options)
        identity = f"{name} {options.validation} {digest}"
        kept, held_out = torch.arange(len(train_labels)), torch.arange(0)
    # Of the kept images only, so that neither validation nor test images shape the normalisation.
    mean, std = channel_statistics(arrays.train.images[kept])
    augment = arrays.augment if options.augment else Augment()

    def loader(part: Part, index: Tensor | slice, *, train: bool) -> DeviceLoader:
        return DeviceLoader(
            part.images[index],
            part.labels[index],
            batch_size=options.batch_size if train else EVALUATION_BATCH,
            device=options.device,
            mean=mean,
            std=std,
            shuffle=train,
            augment=augment if train else Augment(),
        )

    channels, height, width = arrays.train.images.shape[1:]
    train = loader(arrays.train, kept, train=True)
    return VisionData(
        name=name,
        train=train,
        val=validation or loader(arrays.train, held_out, train=False),
        test=loader(arrays.test, slice(None), train=False),
        classes=arrays.classes,
        input_shape=(channels, height, width),
        fingerprint=_fingerprint(identity, arrays),
        augmentation=str(augment),
        plain=train.without_changes(),
        class_names=arrays.class_names,
        preprocessing=Preprocessing(tuple(mean.tolist()), tuple(std.tolist())),
    )


def _split(name: str, labels: Tensor, options: LoadOptions) -> tuple[Tensor, Tensor]:
    """Split the training part, and require that both shares have samples."""
    kept, held_out = split(labels, options.val_fraction, options.seed)
    if len(held_out) == 0 or len(kept) == 0:
        raise DataError(
            f"data.val_fraction: {options.val_fraction} of {len(labels)} samples of {name} "
            f"leaves {len(kept)} for training and {len(held_out)} for validation, expected at least 1 each."
        )
    return kept, held_out


def _load_validation(reference: str, arrays: Arrays, options: LoadOptions) -> tuple[StreamLoader, str]:
    """Load the user's own validation part and its digest, and require that it fits the training part."""
    validation, scan = load_user_validation(reference, options)
    shape = tuple(arrays.train.images.shape[1:])
    if scan.shape != shape or scan.highest >= arrays.classes:
        raise DataError(
            f"data.validation {reference}: images {scan.shape} and labels up to {scan.highest}, "
            f"expected {shape} and up to {arrays.classes - 1}."
        )
    return validation, scan.digest


def _fingerprint(identity: str, arrays: Arrays) -> str:
    digest = hashlib.sha256(identity.encode())
    for part in (arrays.train, arrays.test):
        digest.update(part.images.numpy().tobytes())
        digest.update(part.labels.numpy().tobytes())
    return digest.hexdigest()


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation per channel, float32 [C], of uint8 [n, C, H, W] over 255."""
    means, deviations = [], []
    for channel in range(images.shape[1]):
        # Counts of the 256 values give exact statistics without a float copy of the images.
        counts = torch.bincount(images[:, channel].flatten(), minlength=256).double()
        share = counts / counts.sum()
        values = torch.arange(256, dtype=torch.float64) / 255
        mean = (share * values).sum()
        means.append(mean)
        deviations.append((share * (values - mean) ** 2).sum().sqrt().clamp(min=1e-3))
    return torch.stack(means).float(), torch.stack(deviations).float()


def _check(where: str, part: Part, classes: int) -> None:
    if len(part.images) != len(part.labels) or len(part.labels) == 0:
        raise DataError(
            f"{where}: got {len(part.images)} images and {len(part.labels)} labels, expected the same number."
        )
    low, high = int(part.labels.min()), int(part.labels.max())
    if low < 0 or high >= classes:
        raise DataError(f"{where}: labels from {low} to {high}, expected from 0 to {classes - 1}.")
