"""The user's own loaders, from a function named as "package.module:function".

Before: a name in a config. After: `data.load` hands the loaders out. The function returns (train, val),
(train, val, test) or a dict with these keys (and "classes", where labels alone do not tell); each is a torch
DataLoader or another iterable of (inputs, targets) with a length. It may take batch_size, folder and seed.

    data = load_user("mypkg.data:make", LoadOptions())
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
from collections.abc import Iterable, Mapping, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoprune.data.loaders import StreamLoader
from autoprune.data.vision import LoadOptions, VisionData
from autoprune.errors import AutopruneError, DataError
from autoprune.userfunction import load_function

SCANNED_TRAIN_BATCHES = 100
"""Batches of the training part that are looked through at the start; the validation part is, wholly."""

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Scan:
    """What a look through (a start of) a part found: shape (C, H, W), largest label, counts, hash."""

    shape: tuple[int, int, int]
    highest: int
    batches: int
    samples: int
    digest: str


def load_user(reference: str, options: LoadOptions) -> VisionData:
    """Call the user's function and check what it returns.

    Raises:
        ConfigError: the function cannot be imported.
        DataError: it fails, returns something else, or its data are empty, not finite or wrongly labelled.
    """
    made = _call(reference, options, "data.loaders")
    parts, classes = _parts(reference, made)
    scans = {
        "train": _scan(f"{reference}: train", parts["train"], SCANNED_TRAIN_BATCHES),
        "val": _scan(f"{reference}: val", parts["val"], None),
    }
    classes = classes or 1 + max(scan.highest for scan in scans.values())
    for part, scan in scans.items():
        if scan.highest >= classes:
            raise DataError(
                f"data {reference}: {part}: label {scan.highest} found, expected from 0 to {classes - 1}."
            )
    if scans["train"].shape != scans["val"].shape:
        raise DataError(
            f"data {reference}: train images are {scans['train'].shape}, val images {scans['val'].shape}."
        )
    loaders = {
        part: _loader(f"{reference}: {part}", source, options, scans.get(part))
        for part, source in parts.items()
    }
    # The training part shuffles: its count is hashed, the validation part's content.
    identity = f"{reference} {classes} {loaders['train'].samples} {scans['val'].digest}"
    return VisionData(
        name=reference,
        train=loaders["train"],
        val=loaders["val"],
        test=loaders.get("test"),
        classes=classes,
        input_shape=scans["train"].shape,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
    )


def load_user_validation(reference: str, options: LoadOptions) -> tuple[StreamLoader, Scan]:
    """Call a function that returns one loader, a validation part, and check it.

    Raises:
        ConfigError: the function cannot be imported.
        DataError: it fails, or its data are empty, not finite or wrongly labelled.
    """
    source = _call(reference, options, "data.validation")
    scan = _scan(reference, source, None)
    return _loader(reference, source, options, scan), scan


def _call(reference: str, options: LoadOptions, where: str) -> Any:
    function = load_function(reference, where)
    offered = {"batch_size": options.batch_size, "folder": options.folder, "seed": options.seed}
    taken = inspect.signature(function).parameters
    try:
        return function(**{key: value for key, value in offered.items() if key in taken})
    except AutopruneError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".replace("\n", " ")
        raise DataError(f'{where}: "{reference}" failed: {reason}') from error


def _parts(reference: str, made: Any) -> tuple[dict[str, Any], int | None]:
    if isinstance(made, (tuple, list)) and len(made) in (2, 3):
        named = dict(zip(PARTS, made, strict=False))
    elif isinstance(made, Mapping) and {"train", "val"} <= set(made) <= {*PARTS, "classes"}:
        named = dict(made)
    else:
        raise DataError(
            f'data.loaders: "{reference}" returned a {type(made).__name__}, expected (train, val), '
            '(train, val, test) or a dict with the keys "train" and "val".'
        )
    classes = named.pop("classes", None)
    return {part: source for part, source in named.items() if source is not None}, classes


def _loader(where: str, source: Any, options: LoadOptions, scan: Scan | None) -> StreamLoader:
    if not isinstance(source, Sized) or not isinstance(source, Iterable):
        raise DataError(f"data {where}: a {type(source).__name__} without a length; give it a __len__.")
    batches = len(source)
    dataset = getattr(source, "dataset", None)
    if scan is not None and scan.batches == batches:
        samples = scan.samples
    elif isinstance(dataset, Sized) and not getattr(source, "drop_last", False):
        samples = len(dataset)
    else:
        samples = batches * int(getattr(source, "batch_size", None) or options.batch_size)
    return StreamLoader(source, batches=batches, samples=samples, device=options.device)


def _scan(where: str, source: Any, limit: int | None) -> Scan:
    """Look through a part once, up to `limit` batches."""
    if not isinstance(source, Iterable):
        raise DataError(f"data {where}: a {type(source).__name__}, expected a DataLoader.")
    digest = hashlib.sha256()
    shape: tuple[int, ...] = ()
    highest = batches = samples = 0
    counted = StreamLoader(source, batches=1, samples=1, device="cpu").batches(0, 0)
    for inputs, targets in itertools.islice(counted, limit):
        _check(where, inputs, targets)
        shape = tuple(inputs.shape[1:])
        digest.update(inputs.contiguous().numpy().tobytes())
        digest.update(targets.contiguous().numpy().tobytes())
        if not targets.is_floating_point():
            highest = max(highest, int(targets.max()))
        else:
            highest = max(highest, targets.shape[-1] - 1)
        batches += 1
        samples += len(inputs)
    if samples == 0:
        raise DataError(f"data {where}: the part is empty.")
    channels, height, width = shape
    return Scan((channels, height, width), highest, batches, samples, digest.hexdigest())


def _check(where: str, inputs: Tensor, targets: Tensor) -> None:
    if inputs.ndim != 4 or len(inputs) != len(targets) or len(inputs) == 0:
        raise DataError(
            f"data {where}: a batch of inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}, "
            "expected [n, C, H, W] and [n]."
        )
    if not inputs.is_floating_point():
        raise DataError(f"data {where}: inputs are {inputs.dtype}, expected normalised float32 images.")
    if not bool(torch.isfinite(inputs).all()):
        raise DataError(f"data {where}: the inputs have NaN or infinite values; clean them.")
    if targets.is_floating_point():
        if not bool(torch.isfinite(targets).all()):
            raise DataError(f"data {where}: the targets have NaN or infinite values; clean them.")
    elif int(targets.min()) < 0:
        raise DataError(f"data {where}: label {int(targets.min())} found, expected 0 or more.")
