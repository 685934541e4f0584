"""A user's own loaders, given directly or as a function "package.module:function" that returns them.

The loaders are (train, val), (train, val, test) or a dict with these keys. The dict may also have "classes",
if labels do not show their number. Each loader is a torch DataLoader or another iterable of (inputs, targets)
with a length. A function that returns loaders may take batch_size, folder and seed.

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

from autoprune.data._loaders import Prepare, StreamLoader
from autoprune.data._vision import LoadOptions, VisionData
from autoprune.errors import DataError, a_kind, shown_value, suggest
from autoprune.support.structures import mapped, samples_in, tensors_in
from autoprune.support.usercode import call_with_offered, guarded
from autoprune.support.userfunction import load_function

_log = logging.getLogger(__name__)

SCANNED_TRAIN_BATCHES = 100
"""Number of training batches that are checked at the start. The validation part is checked completely."""

PARTS = ("train", "val", "test")

MOST_CLASSES = 10_000_000
"""Larger labels are no class numbers: a head with that many outputs would not fit in memory."""

UserLoaders = Sequence[Any] | Mapping[str, Any]
"""(train, val), (train, val, test), or a dict with these keys and optionally "classes"."""


@dataclass(frozen=True)
class Scan:
    """The result of reading a part, or its first batches.

    Attributes:
        shape: shape of an image (C, H, W), or () for inputs of another structure.
        highest: largest label, or -1 if the targets are no labels.
        batches: number of batches.
        samples: number of samples.
        digest: SHA-256 of all tensors.
        example: the inputs of the first batch.
    """

    shape: tuple[int, ...]
    highest: int
    batches: int
    samples: int
    digest: str
    example: Any


def load_user(reference: str, options: LoadOptions) -> VisionData:
    """Call the user's function and check the loaders that it returns.

    Raises:
        ConfigError: if the function cannot be imported.
        DataError: if it fails, returns something else, or its data are empty, not finite or wrongly labelled,
            or if `validation` is set.
    """
    if options.validation is not None:
        raise DataError(
            f'data.validation: "{reference}" already returns a validation part. Leave data.validation out.'
        )
    return wrap_loaders(
        _call(reference, options, "data.loaders"),
        name=reference,
        device=options.device,
        batch_size=options.batch_size,
        prepare=options.prepare,
    )


def wrap_loaders(
    loaders: UserLoaders,
    *,
    name: str = "loaders",
    device: str = "cpu",
    batch_size: int = 128,
    prepare: Prepare | None = None,
) -> VisionData:
    """Check a user's loaders and return them as `VisionData`.

    Args:
        loaders: (train, val), (train, val, test), or a dict with these keys and optionally "classes".
        name: name of the data in messages and in the fingerprint.
        device: device of the batches.
        batch_size: batch size to count samples with, for a loader without a dataset and a batch_size.
        prepare: splits a batch of the loaders into (inputs, targets), or None if batches are such pairs.

    Raises:
        DataError: if the loaders have another form, or their data are empty, not finite or wrongly labelled.
    """
    parts, classes = _parts(name, loaders)
    scans = {
        "train": _scan(f"{name}: train", parts["train"], SCANNED_TRAIN_BATCHES, prepare),
        "val": _scan(f"{name}: val", parts["val"], None, prepare),
    }
    classes = classes or 1 + max(scan.highest for scan in scans.values())
    for part, scan in scans.items():
        if scan.highest >= classes:
            raise DataError(f"data {name}: {part}: got label {scan.highest}, expected 0 to {classes - 1}.")
    if scans["train"].shape != scans["val"].shape:
        raise DataError(
            f"data {name}: train images are {scans['train'].shape} and val images {scans['val'].shape}, "
            "expected the same shape."
        )
    wrapped = {
        part: _loader(
            f"{name}: {part}",
            source,
            scans.get(part),
            device,
            batch_size,
            is_bounded=part != "train",
            prepare=prepare,
        )
        for part, source in parts.items()
    }
    # The training part is shuffled, so its number of samples is hashed instead of its content.
    identity = f"{name} {classes} {wrapped['train'].samples} {scans['val'].digest}"
    return VisionData(
        name=name,
        train=wrapped["train"],
        val=wrapped["val"],
        test=wrapped.get("test"),
        classes=classes,
        input_shape=scans["train"].shape,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        class_names=_class_names(parts["train"], classes),
        example=scans["val"].example,
    )


def load_user_validation(reference: str, options: LoadOptions) -> tuple[StreamLoader, Scan]:
    """Call a function that returns a loader of validation data, and check it.

    Raises:
        ConfigError: if the function cannot be imported.
        DataError: if it fails, or its data are empty, not finite or wrongly labelled.
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
            f'the keys "train" and "val", and optionally "test" and "classes".{hint}'
        )
    classes = named.pop("classes", None)
    if not (classes is None or (type(classes) is int and 0 < classes < MOST_CLASSES)):
        raise DataError(
            f'data {name}: "classes": got {shown_value(classes)}, expected the number of classes, e.g. 10.'
        )
    return {part: source for part, source in named.items() if source is not None}, classes


def _class_names(source: Any, classes: int) -> tuple[str, ...]:
    """Return the names of the classes that a data set of torchvision's kind holds, or ()."""
    names = getattr(getattr(source, "dataset", None), "classes", ())
    is_list = isinstance(names, (list, tuple)) and len(names) == classes
    return tuple(names) if is_list and all(isinstance(name, str) for name in names) else ()


def _described(made: Any) -> str:
    """Describe an object that is not in the form of `UserLoaders`."""
    kind = a_kind(made)
    if isinstance(made, (tuple, list)):
        return f"{kind} of {len(made)}"
    if isinstance(made, Mapping):
        return f"{kind} with the keys {', '.join(map(shown_value, made))}"
    return kind


def _loader(
    where: str,
    source: Any,
    scan: Scan | None,
    device: str,
    batch_size: int,
    *,
    is_bounded: bool,
    prepare: Prepare | None = None,
) -> StreamLoader:
    batches = _length(where, source)
    if getattr(source, "persistent_workers", False):
        _log.warning(
            "data %s: persistent workers keep their random states from epoch to epoch, so a resumed search "
            "augments differently from an uninterrupted one. Set persistent_workers=False.",
            where,
        )
    dataset = getattr(source, "dataset", None)
    # Take the exact number of samples if the whole part was read, else the best estimate.
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
        prepare=prepare,
    )


def _length(where: str, source: Any) -> int:
    """Return the number of batches in an epoch.

    Raises:
        DataError: if the part is no loader, can be read only once, or has no length.
    """
    kind = a_kind(source)
    if not isinstance(source, Iterable):
        raise DataError(f"data {where}: got {kind}, expected a DataLoader.")
    if isinstance(source, Iterator):
        raise DataError(f"data {where}: {kind} can be read only once. Give a DataLoader or a list.")
    if not isinstance(source, Sized):
        raise DataError(f"data {where}: {kind} without a length. Give it a __len__.")
    with guarded(f"data {where}: its length cannot be read", DataError, advice="Give it a __len__."):
        return len(source)


def _scan(where: str, source: Any, limit: int | None, prepare: Prepare | None = None) -> Scan:
    """Read a part once and check it, up to `limit` batches, or completely if `limit` is None."""
    length = _length(where, source)
    scanner = _Scanner(where)
    counted = StreamLoader(
        source,
        batches=max(1, length),
        samples=1,
        device="cpu",
        where=f"data {where}",
        is_bounded=limit is None,
        prepare=prepare,
    )
    for inputs, targets in itertools.islice(counted, limit):
        with guarded(f"data {where}: batch {scanner.batches} cannot be read", DataError):
            scanner.add(mapped(Tensor.detach, inputs), mapped(Tensor.detach, targets))
    if scanner.samples == 0:
        raise DataError(f"data {where}: the part is empty.")
    if scanner.batches < min(length, limit or length):
        raise DataError(
            f"data {where}: got {scanner.batches} batches, expected {length} by its length. Correct its "
            "__len__."
        )
    if not _surely_starts_over(source) and next(iter(counted), None) is None:
        raise DataError(
            f"data {where}: {a_kind(source)} can be read only once: it yielded no batch when it was "
            "read again. Give a DataLoader or a list."
        )
    return scanner.result()


def _surely_starts_over(source: Any) -> bool:
    """Return whether a part is known to be re-readable. An attempt would start its workers again."""
    return isinstance(source, DataLoader) and not isinstance(source.dataset, IterableDataset)


class _Scanner:
    """Checks a part batch by batch and collects a `Scan`."""

    def __init__(self, where: str) -> None:
        self.batches = self.samples = 0
        self._where = where
        self._highest = -1
        self._shape: tuple[int, ...] = ()
        self._example: Any = None
        self._digest = hashlib.sha256()

    def add(self, inputs: Any, targets: Any) -> None:
        """Check the next batch and add it.

        Raises:
            DataError: if it is malformed, not finite or wrongly labelled, or its images have another shape.
        """
        if self._example is None:
            self._example = inputs
        if isinstance(inputs, Tensor) and isinstance(targets, Tensor):
            self._add_images(inputs, targets)
        else:
            _check_finite(self._where, "inputs", *tensors_in(inputs))
            _check_finite(self._where, "targets", *tensors_in(targets))
        for tensor in (*tensors_in(inputs), *tensors_in(targets)):
            # NumPy has no bfloat16.
            known = tensor.float() if tensor.dtype is torch.bfloat16 else tensor
            self._digest.update(known.contiguous().numpy().tobytes())
        self.batches += 1
        self.samples += samples_in(inputs)

    def _add_images(self, inputs: Tensor, targets: Tensor) -> None:
        _check(self._where, inputs, targets)
        shape = tuple(inputs.shape[1:])
        if self._shape not in ((), shape):
            raise DataError(
                f"data {self._where}: images of batch {self.batches} are {shape}, expected {self._shape} as "
                "in earlier batches. Resize all images to one size."
            )
        self._shape = shape
        self._highest = max(self._highest, _highest(targets))

    def result(self) -> Scan:
        """Return the scan of all batches so far."""
        return Scan(
            self._shape, self._highest, self.batches, self.samples, self._digest.hexdigest(), self._example
        )


def _highest(targets: Tensor) -> int:
    """Return the largest label, or the last class of floating targets [n, classes, ...], else 0."""
    if not targets.is_floating_point():
        return int(targets.max())
    return targets.shape[1] - 1 if targets.ndim > 1 else 0


def _check_finite(where: str, word: str, *tensors: Tensor) -> None:
    if not all(bool(torch.isfinite(each).all()) for each in tensors if each.is_floating_point()):
        raise DataError(f"data {where}: the {word} have NaN or infinite values. Clean them.")


def _check(where: str, inputs: Tensor, targets: Tensor) -> None:
    if inputs.ndim != 4 or targets.ndim == 0 or len(inputs) != len(targets) or len(inputs) == 0:
        raise DataError(
            f"data {where}: got a batch of inputs {tuple(inputs.shape)} and targets {tuple(targets.shape)}, "
            "expected [n, C, H, W] and [n]."
        )
    if inputs.dtype is not torch.float32:
        raise DataError(
            f"data {where}: inputs are {inputs.dtype}, expected normalised torch.float32 images. Convert "
            "them with .float()."
        )
    if inputs.layout is not torch.strided:
        raise DataError(f"data {where}: inputs have the layout {inputs.layout}. Give dense tensors.")
    _check_finite(where, "inputs", inputs)
    _check_finite(where, "targets", targets)
    if targets.is_floating_point():
        return
    if targets.is_complex():
        raise DataError(f"data {where}: targets are {targets.dtype}, expected labels or floating numbers.")
    if int(targets.min()) < 0:
        raise DataError(f"data {where}: got label {int(targets.min())}, expected 0 or more.")
    if int(targets.max()) >= MOST_CLASSES:
        raise DataError(
            f"data {where}: got label {int(targets.max())}, expected class numbers below {MOST_CLASSES:,}."
        )
