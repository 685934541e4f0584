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
import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from autoprune.data._loaders import StreamLoader
from autoprune.data._vision import LoadOptions, VisionData
from autoprune.errors import DataError, shown_value, suggest
from autoprune.support.usercode import call_with_offered, guarded
from autoprune.support.userfunction import load_function

_log = logging.getLogger(__name__)

SCANNED_TRAIN_BATCHES = 100
"""Batches of the training part that are looked through at the start; the validation part is, wholly."""

PARTS = ("train", "val", "test")

MOST_CLASSES = 10_000_000
"""Labels from here on are no class numbers: a head with as many outputs fits no memory."""

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
        part: _loader(
            f"{name}: {part}", source, scans.get(part), device, batch_size, is_bounded=part != "train"
        )
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
    return _loader(reference, source, scan, options.device, options.batch_size, is_bounded=True), scan


def _call(reference: str, options: LoadOptions, where: str) -> Any:
    function = load_function(reference, where)
    offered = {"batch_size": options.batch_size, "folder": options.folder, "seed": options.seed}
    return call_with_offered(function, f'{where}: "{reference}"', DataError, offered)


def _parts(name: str, made: Any) -> tuple[dict[str, Any], int | None]:
    known = (*PARTS, "classes")
    if isinstance(made, (tuple, list)) and len(made) in (2, 3):
        named = dict(zip(PARTS, made, strict=False))
    elif isinstance(made, Mapping) and {"train", "val"} <= set(made) <= set(known):
        named = dict(made)
    else:
        hint = ""
        if isinstance(made, Mapping):
            hint = next((suggest(str(key), known) for key in made if key not in known), "")
        raise DataError(
            f"data {name}: got {_described(made)}, expected (train, val), (train, val, test) or a dict with "
            f'the keys "train" and "val", and perhaps "test" and "classes".{hint}'
        )
    classes = named.pop("classes", None)
    if not (classes is None or (type(classes) is int and 0 < classes < MOST_CLASSES)):
        raise DataError(
            f'data {name}: "classes": got {shown_value(classes)}, expected how many there are, e.g. 10.'
        )
    return {part: source for part, source in named.items() if source is not None}, classes


def _described(made: Any) -> str:
    """Describe the object that came in place of the parts."""
    kind = type(made).__name__
    if isinstance(made, (tuple, list)):
        return f"a {kind} of {len(made)}"
    if isinstance(made, Mapping):
        return f"a {kind} with the keys {', '.join(map(shown_value, made))}"
    return f"a {kind}"


def _loader(
    where: str, source: Any, scan: Scan | None, device: str, batch_size: int, *, is_bounded: bool
) -> StreamLoader:
    batches = _length(where, source)
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
    return StreamLoader(
        source,
        batches=batches,
        samples=samples,
        device=device,
        where=f"data {where}",
        is_bounded=is_bounded,
    )


def _length(where: str, source: Any) -> int:
    """Return how many batches an epoch has.

    Raises:
        DataError: the part is no loader, can be read only once, or has no length.
    """
    kind = type(source).__name__
    if not isinstance(source, Iterable):
        raise DataError(f"data {where}: a {kind}, expected a DataLoader.")
    if isinstance(source, Iterator):
        raise DataError(f"data {where}: a {kind} can be read only once; give a DataLoader or a list.")
    if not isinstance(source, Sized):
        raise DataError(f"data {where}: a {kind} without a length; give it a __len__.")
    with guarded(f"data {where}: its length cannot be read", DataError, advice="give it a __len__."):
        return len(source)


def _scan(where: str, source: Any, limit: int | None) -> Scan:
    """Look through a part once, up to `limit` batches, or through as many as its length says."""
    length = _length(where, source)
    look = _Look(where)
    counted = StreamLoader(
        source,
        batches=max(1, length),
        samples=1,
        device="cpu",
        where=f"data {where}",
        is_bounded=limit is None,
    )
    for inputs, targets in itertools.islice(counted, limit):
        with guarded(f"data {where}: batch {look.batches} cannot be read", DataError):
            look.at(inputs.detach(), targets.detach())
    if look.samples == 0:
        raise DataError(f"data {where}: the part is empty.")
    if look.batches < min(length, limit or length):
        raise DataError(
            f"data {where}: it ended after {look.batches} batches, its length says {length}; correct its "
            "__len__."
        )
    if not _surely_starts_over(source) and next(iter(counted), None) is None:
        raise DataError(
            f"data {where}: a {type(source).__name__} can be read only once: it gave no batch when it was "
            "read again; give a DataLoader or a list."
        )
    return look.found()


def _surely_starts_over(source: Any) -> bool:
    """Return whether a part can surely be read again. Trying that would start its workers, if any, again."""
    return isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset)


class _Look:
    """Collects the facts on a part, batch by batch."""

    def __init__(self, where: str) -> None:
        self.batches = self.samples = 0
        self._where = where
        self._highest = 0
        self._shape: tuple[int, ...] = ()
        self._digest = hashlib.sha256()

    def at(self, inputs: Tensor, targets: Tensor) -> None:
        """Check the next batch and take it into account.

        Raises:
            DataError: it is malformed, not finite, wrongly labelled, or its images have another shape.
        """
        _check(self._where, inputs, targets)
        shape = tuple(inputs.shape[1:])
        if self._shape not in ((), shape):
            raise DataError(
                f"data {self._where}: images of batch {self.batches} are {shape}, those before "
                f"{self._shape}; bring all to one size."
            )
        self._shape = shape
        self._digest.update(inputs.contiguous().numpy().tobytes())
        known = targets.float() if targets.dtype is torch.bfloat16 else targets  # NumPy knows no bfloat16
        self._digest.update(known.contiguous().numpy().tobytes())
        self._highest = max(self._highest, _highest(targets))
        self.batches += 1
        self.samples += len(inputs)

    def found(self) -> Scan:
        """Return the facts on all batches so far."""
        channels, height, width = self._shape
        return Scan(
            (channels, height, width), self._highest, self.batches, self.samples, self._digest.hexdigest()
        )


def _highest(targets: Tensor) -> int:
    """Return the largest label, or the last class of floating targets [n, classes, ...], else 0."""
    if not targets.is_floating_point():
        return int(targets.max())
    return targets.shape[1] - 1 if targets.ndim > 1 else 0


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
    if inputs.layout is not torch.strided:
        raise DataError(f"data {where}: inputs are no plain tensors ({inputs.layout}); give dense ones.")
    if not bool(torch.isfinite(inputs).all()):
        raise DataError(f"data {where}: the inputs have NaN or infinite values; clean them.")
    if targets.is_floating_point():
        if not bool(torch.isfinite(targets).all()):
            raise DataError(f"data {where}: the targets have NaN or infinite values; clean them.")
    elif targets.is_complex():
        raise DataError(f"data {where}: targets are {targets.dtype}, expected labels or floating numbers.")
    elif int(targets.min()) < 0:
        raise DataError(f"data {where}: label {int(targets.min())} found, expected 0 or more.")
    elif int(targets.max()) >= MOST_CLASSES:
        raise DataError(
            f"data {where}: label {int(targets.max())} found, expected class numbers below {MOST_CLASSES:,}."
        )
