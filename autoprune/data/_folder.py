"""Stream an image folder through DataLoader workers: train/, val/ and optionally test/, a folder per class.

Example:
    data = load_folder(LoadOptions(folder=Path("flowers"), image_size=160, workers=4))
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from autoprune.data._loaders import StreamLoader
from autoprune.data._vision import LoadOptions, Preprocessing, VisionData
from autoprune.errors import DataError, reason_of

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Mean and standard deviation of ImageNet's channels, for which torchvision's weights were trained."""

DEFAULT_IMAGE_SIZE = 224


def load_folder(options: LoadOptions) -> VisionData:
    """Open train/, val/ and, if it exists, test/ under `options.folder`.

    Images are read as RGB. With `augment`, training images are cropped and flipped at random. All other
    images are scaled and cropped at their centre to `image_size`, as torchvision's recipes do.

    Raises:
        DataError: if a folder is missing or empty, the parts differ in their classes, or `validation` is set.
    """
    if options.folder is None:
        raise DataError("data.folder: missing. Set it to the folder that contains train/ and val/.")
    if options.validation is not None:
        raise DataError("data.validation: a folder has its own part val/. Leave data.validation out.")
    datasets = {
        part: _open(options.folder / part, _transform(options, train=part == "train"))
        for part in ("train", "val", "test")
        if part != "test" or (options.folder / part).is_dir()
    }
    classes = datasets["train"].classes
    digest = hashlib.sha256()
    for part, dataset in datasets.items():
        if dataset.classes != classes:
            odd = sorted(set(dataset.classes) ^ set(classes))
            raise DataError(
                f'data.folder {options.folder}: {part}/ and train/ differ in their classes, e.g. "{odd[0]}".'
            )
        for path, label in dataset.samples:
            relative = Path(path).relative_to(options.folder)
            digest.update(f"{relative} {Path(path).stat().st_size} {label}\n".encode())
    loaders = {part: _loader(dataset, options, train=part == "train") for part, dataset in datasets.items()}
    size = options.image_size or DEFAULT_IMAGE_SIZE
    plain = copy.copy(datasets["train"])  # a shallow copy, because the list of files may be long
    plain.transform = _transform(options, train=False)
    return VisionData(
        name="folder",
        train=loaders["train"],
        val=loaders["val"],
        test=loaders.get("test"),
        classes=len(classes),
        input_shape=(3, size, size),
        fingerprint=digest.hexdigest(),
        augmentation=f"{'crops and flips' if options.augment else 'nothing'} at {size} pixels",
        plain=_loader(plain, options, train=True),
        class_names=tuple(classes),
        preprocessing=Preprocessing(MEAN, STD, resize=_resize(size)),
    )


def _open(folder: Path, transform: Callable[..., Any]) -> Any:
    from torchvision.datasets import ImageFolder  # type: ignore[import-untyped]  # ships no types

    if not folder.is_dir():
        raise DataError(f"data.folder: {folder} is missing. It must contain one folder of images per class.")
    try:
        return ImageFolder(str(folder), transform=transform, loader=_read_image)
    except FileNotFoundError as error:
        raise DataError(f"data.folder {folder}: {reason_of(error)}") from error


def _read_image(path: str) -> Any:
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError) as error:
        raise DataError(f"data: {path} cannot be read as an image. Repair or remove it.") from error


def _transform(options: LoadOptions, *, train: bool) -> Callable[..., Any]:
    from torchvision import transforms  # type: ignore[import-untyped]  # ships no types

    size = options.image_size or DEFAULT_IMAGE_SIZE
    if train and options.augment:
        steps = [transforms.RandomResizedCrop(size), transforms.RandomHorizontalFlip()]
    else:
        steps = [transforms.Resize(_resize(size)), transforms.CenterCrop(size)]
    composed: Callable[..., Any] = transforms.Compose(
        [*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    )
    return composed


def _resize(size: int) -> int:
    """Return the shorter side in pixels before the centre crop."""
    return round(size * 256 / 224)


def _loader(dataset: Any, options: LoadOptions, *, train: bool) -> StreamLoader:
    size = min(options.batch_size, len(dataset))
    source: DataLoader[Any] = DataLoader(
        dataset,
        batch_size=size,
        shuffle=train,
        drop_last=train,
        num_workers=options.workers,
        pin_memory=options.device.startswith("cuda"),
    )
    samples = len(source) * size if train else len(dataset)
    return StreamLoader(source, batches=len(source), samples=samples, device=options.device)


def picture_size(folder: Path, most: int = 20) -> int | None:
    """Return the median of the shorter sides of some training images in pixels, or None without any."""
    from PIL import Image

    files = sorted(path for path in (folder / "train").glob("*/*") if path.is_file())
    sides = []
    for path in files[:: max(1, len(files) // most)]:
        with contextlib.suppress(OSError, ValueError), Image.open(path) as image:
            sides.append(min(image.size))
    return sorted(sides)[len(sides) // 2] if sides else None
