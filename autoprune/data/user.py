"""The user's own loaders, as they are or from a function named as "package.module:function".

Before: loaders in a script, or a name in a config. After: `train` and `score` read them as a VisionData. The
loaders are (train, val), (train, val, test) or a dict with these keys (and "classes", where labels alone do
not tell); each is a torch DataLoader or another iterable of (inputs, targets) with a length. A function that
returns them may take batch_size, folder and seed.

    data = wrap_loaders((train_loader, val_loader), device="cpu")
    data = load_user("mypkg.data:make", LoadOptions())
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from autoprune.data.loaders import StreamLoader
from autoprune.data.vision import LoadOptions, VisionData
from autoprune.errors import AutopruneError, DataError, summary_of
from autoprune.userfunction import load_function

_log = logging.getLogger(__name__)

SCANNED_TRAIN_BATCHES = 100
"""Batches of the training part that are looked through at the start; the validation part is, wholly."""

PARTS = ("train", "val", "test")

UserLoaders = Sequence[Any] | Mapping[str, Any]
"""(train, val), (train, val, test), or a dict with these keys and perhaps "classes"."""


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
        DataError: it fails, returns something else, or its data are empty, not finite or wrongly labelled; or
            another validation part is asked for.
    """
    if options.validation is not None:
        raise DataError(
            f'data.validation: "{reference}" returns a validation part already; leave data.validation out.'
        )
    return wrap_loaders(
        _call(reference, options, "data.loaders"),
        name=reference,
        device=options.device,
        batch_size=options.batch_size,
    )


def wrap_loaders(
    loaders: UserLoaders, *, name: str = "loaders", device: str = "cpu", batch_size: int = 128
) -> VisionData:
    """Check a user's loaders and put them into the form in which all data travel.

    Args:
        loaders: (train, val), (train, val, test), or a dict with these keys and perhaps "classes".
        name: for messages, and part of the fingerprint.
        device: where the batches are moved to.
        batch_size: to count samples with, of a loader that tells neither its data set nor its batch size.

    Raises:
        DataError: something else, or data that are empty, not finite or wrongly labelled.
    """
    parts, classes = _parts(name, loaders)
    scans = {
        "train": _scan(f"{name}: train", parts["train"], SCANNED_TRAIN_BATCHES),
        "val": _scan(f"{name}: val", parts["val"], None),
    }
    classes = classes or 1 + max(scan.highest for scan in scans.values())
    for part, scan in scans.items():
        if scan.highest >= classes:
            raise DataError(
                f"data {name}: {part}: label {scan.highest} found, expected from 0 to {classes - 1}."
            )
    if scans["train"].shape != scans["val"].shape:
        raise DataError(
            f"data {name}: train images are {scans['train'].shape}, val images {scans['val'].shape}."
        )
    wrapped = {
        part: _loader(f"{name}: {part}", source, scans.get(part), device, batch_size)
        for part, source in parts.items()
    }
    # The training part shuffles: its count is hashed, the validation part's content.
    identity = f"{name} {classes} {wrapped['train'].samples} {scans['val'].digest}"
    return VisionData(
        name=name,
        train=wrapped["train"],
        val=wrapped["val"],
        test=wrapped.get("test"),
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
    return _loader(reference, source, scan, options.device, options.batch_size), scan


def _call(reference: str, options: LoadOptions, where: str) -> Any:
    function = load_function(reference, where)
    offered = {"batch_size": options.batch_size, "folder": options.folder, "seed": options.seed}
    taken = inspect.signature(function).parameters
    try:
        return function(**{key: value for key, value in offered.items() if key in taken})
    except AutopruneError:
        raise
    except Exception as error:
        raise DataError(f'{where}: "{reference}" failed: {summary_of(error)}') from error


def _parts(name: str, made: Any) -> tuple[dict[str, Any], int | None]:
    if isinstance(made, (tuple, list)) and len(made) in (2, 3):
        named = dict(zip(PARTS, made, strict=False))
    elif isinstance(made, Mapping) and {"train", "val"} <= set(made) <= {*PARTS, "classes"}:
        named = dict(made)
    else:
        raise DataError(
            f"data {name}: got a {type(made).__name__}, expected (train, val), "
            '(train, val, test) or a dict with the keys "train" and "val".'
        )
    classes = named.pop("classes", None)
    if not (classes is None or (type(classes) is int and classes > 0)):
        raise DataError(f'data {name}: "classes": got {classes!r}, expected how many there are, e.g. 10.')
    return {part: source for part, source in named.items() if source is not None}, classes


def _loader(where: str, source: Any, scan: Scan | None, device: str, batch_size: int) -> StreamLoader:
    if not isinstance(source, Sized) or not isinstance(source, Iterable):
        raise DataError(f"data {where}: a {type(source).__name__} without a length; give it a __len__.")
    try:
        batches = len(source)
    except Exception as error:
        raise DataError(f"data {where}: its length cannot be told ({error}); give it a __len__.") from error
    if getattr(source, "persistent_workers", False):
        _log.warning(
            "data %s: persistent workers keep their random states from epoch to epoch, so that a search that "
            "goes on augments otherwise than one that was never stopped; set persistent_workers=False",
            where,
        )
    dataset = getattr(source, "dataset", None)
    if scan is not None and scan.batches == batches:
        samples = scan.samples
    elif isinstance(dataset, Sized) and not getattr(source, "drop_last", False):
        samples = len(dataset)
    else:
        samples = batches * int(getattr(source, "batch_size", None) or batch_size)
    return StreamLoader(source, batches=batches, samples=samples, device=device, where=f"data {where}")


def _scan(where: str, source: Any, limit: int | None) -> Scan:
    """Look through a part once, up to `limit` batches."""
    if not isinstance(source, Iterable):
        raise DataError(f"data {where}: a {type(source).__name__}, expected a DataLoader.")
    if isinstance(source, Iterator):
        raise DataError(
            f"data {where}: a {type(source).__name__} can be read only once; give a DataLoader or a list."
        )
    digest = hashlib.sha256()
    shape: tuple[int, ...] = ()
    highest = batches = samples = 0
    counted = StreamLoader(source, batches=1, samples=1, device="cpu", where=f"data {where}").batches(0, 0)
    for inputs, targets in itertools.islice(counted, limit):
        _check(where, inputs, targets)
        shape = tuple(inputs.shape[1:])
        digest.update(inputs.contiguous().numpy().tobytes())
        known = targets.float() if targets.dtype is torch.bfloat16 else targets  # NumPy knows no bfloat16
        digest.update(known.contiguous().numpy().tobytes())
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
    if inputs.ndim != 4 or targets.ndim == 0 or len(inputs) != len(targets) or len(inputs) == 0:
        raise DataError(
            f"data {where}: a batch of inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}, "
            "expected [n, C, H, W] and [n]."
        )
    if inputs.dtype is not torch.float32:
        raise DataError(
            f"data {where}: inputs are {inputs.dtype}, expected normalised torch.float32 images; convert "
            "them with .float()."
        )
    if not bool(torch.isfinite(inputs).all()):
        raise DataError(f"data {where}: the inputs have NaN or infinite values; clean them.")
    if targets.is_floating_point():
        if not bool(torch.isfinite(targets).all()):
            raise DataError(f"data {where}: the targets have NaN or infinite values; clean them.")
    elif int(targets.min()) < 0:
        raise DataError(f"data {where}: label {int(targets.min())} found, expected 0 or more.")
