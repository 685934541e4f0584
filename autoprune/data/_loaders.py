"""Loaders: reproducible batches of (inputs, targets) on the device.

A loader has no position and no random state. `loader.batches(seed, epoch)` depends on its two arguments only,
so a resumed training gets the same batches as an uninterrupted one.

    loader = DeviceLoader(images, labels, batch_size=128, device="cpu", shuffle=True, augment=Augment(pad=2))
    for inputs, targets in loader.batches(seed=0, epoch=3): ...
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as functional
from torch import Tensor

from autoprune.data._randomness import random_states, restore_random_states, seeded_states, stream_seed
from autoprune.errors import DataError, a_kind, shortened, summary_of, text_of
from autoprune.execution.layout import plain_if_both
from autoprune.support.structures import mapped, moved, tensors_in
from autoprune.support.usercode import call_user, guarded

Batch = tuple[Any, Any]
"""(inputs, targets): two tensors, or structures of tensors (see `autoprune.support.structures`)."""

Prepare = Callable[[Any], Batch]
"""Splits a batch, as the user's loader yields it, into (inputs, targets)."""

_END = object()
"""Marks the end of a source. None cannot, because a collate function may return None as a batch."""


class Loader(Protocol):
    """One part of the data. `iter(loader)` yields `batches(seed=0, epoch=0)`."""

    @property
    def samples(self) -> int:
        """Number of samples in the part."""
        ...

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of epoch 0 under seed 0."""
        ...

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield (inputs, targets) on the device. Equal arguments give equal batches."""
        ...


@dataclass(frozen=True)
class Augment:
    """Augmentation of training images: a shift by up to `pad` pixels, filled with zeros, and a flip."""

    pad: int = 0
    flip: bool = False


class DeviceLoader:
    """Keeps a whole part on the device as uint8, and augments and normalises each batch there.

    Args:
        images: uint8 [n, C, H, W].
        labels: int64 [n].
        batch_size: number of samples in a batch.
        device: device of the part and of the batches.
        mean: mean of each channel [C], of values in [0, 1].
        std: standard deviation of each channel [C], of values in [0, 1].
        shuffle: whether to shuffle each epoch. The last, smaller batch is then left out.
        augment: the augmentation, none by default.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        batch_size: int,
        device: str | torch.device,
        mean: Tensor,
        std: Tensor,
        shuffle: bool = False,
        augment: Augment | None = None,
    ) -> None:
        if len(images) == 0:
            raise DataError("data: a part without samples. Give it more data or a larger share.")
        # Stored as [n, H, W, C], so that shifting a batch gathers whole pixels.
        self._images = images.permute(0, 2, 3, 1).contiguous().to(device)
        self._labels = labels.to(device)
        self._batch_size = min(batch_size, len(images))
        self._shuffle = shuffle
        self._augment = augment or Augment()
        self._share: Callable[[int], slice] = slice
        self._scale = (1 / (255 * std)).to(device, torch.float32)
        self._shift = (-mean / std).to(device, torch.float32)

    @property
    def samples(self) -> int:
        """Number of samples in the part."""
        return len(self._labels)

    def without_changes(self) -> DeviceLoader:
        """Return a loader of the same images in the same order and memory, without augmentation."""
        plain = copy.copy(self)
        plain._augment = Augment()
        return plain

    def shared(self, share: Callable[[int], slice]) -> DeviceLoader:
        """Return a loader of the samples that `share` chooses of each batch, given their number."""
        part = copy.copy(self)
        part._share = share
        return part

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        if self._shuffle:
            return self.samples // self._batch_size
        return math.ceil(self.samples / self._batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of epoch 0 under seed 0."""
        return self.batches(0, 0)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield (float32 [b, C, H, W], int64 [b]). Order and augmentation depend on seed and epoch only."""
        device = self._labels.device
        # All draws are on the CPU, so that batches do not depend on the device.
        generator = torch.Generator().manual_seed(stream_seed(seed, epoch))
        order = torch.arange(self.samples)
        if self._shuffle:
            order = torch.randperm(self.samples, generator=generator)
        pad = self._augment.pad
        shifts = torch.zeros(2, self.samples, dtype=torch.int64)
        if pad:
            shifts = torch.randint(-pad, pad + 1, (2, self.samples), generator=generator)
        flips = torch.zeros(self.samples, dtype=torch.bool)
        if self._augment.flip:
            flips = torch.rand(self.samples, generator=generator) < 0.5
        order, shifts, flips = order.to(device), shifts.to(device), flips.to(device)
        for start in range(0, len(self) * self._batch_size, self._batch_size):
            count = min(self._batch_size, self.samples - start)
            own = self._share(count)
            part = slice(start + (own.start or 0), start + own.stop)
            index = order[part]
            images = self._images[index]
            if pad or self._augment.flip:
                images = _shift_and_flip(images, shifts[:, part], flips[part], pad)
            # (images / 255 - mean) / std in one pass over the batch.
            inputs = torch.addcmul(self._shift, images.to(torch.float32), self._scale)
            yield plain_if_both(inputs.permute(0, 3, 1, 2)), self._labels[index]


class StreamLoader:
    """Streams batches from an iterable, usually a torch DataLoader with workers, to the device.

    The iterable draws from global random states (shuffling, augmentation, the workers' seeds). While it reads
    a batch, these states are replaced by states of its own, which (seed, epoch) seeds.

    Args:
        source: an iterable of batches, which can be iterated again.
        batches: number of batches in an epoch.
        samples: number of samples in an epoch.
        device: device of the batches. Pinned memory is copied asynchronously.
        where: name of the data and the part in messages.
        is_bounded: whether an epoch of more than `batches` batches is an error. Training may stop inside an
            epoch, but an evaluation reads a part to its end and would never finish an endless one.
        prepare: splits a batch into (inputs, targets), or None if batches are such pairs.
    """

    def __init__(
        self,
        source: Iterable[Any],
        *,
        batches: int,
        samples: int,
        device: str | torch.device,
        where: str = "data",
        is_bounded: bool = False,
        prepare: Prepare | None = None,
    ) -> None:
        if batches == 0 or samples == 0:
            raise DataError("data: a part without samples. Give it more data.")
        self.source = source
        self._reader = source
        self._batches = batches
        self._samples = samples
        self._device = torch.device(device)
        self._where = where
        self._is_bounded = is_bounded
        self._prepare = prepare

    def reading(self, reader: Iterable[Any]) -> StreamLoader:
        """Return a loader that seeds the generators of the same source, and reads batches from `reader`."""
        other = copy.copy(self)
        other._reader = reader
        return other

    @property
    def samples(self) -> int:
        """Number of samples in the part."""
        return self._samples

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return self._batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield the batches of epoch 0 under seed 0."""
        return self.batches(0, 0)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        """Yield (inputs, targets) on the device, seeded by (seed, epoch).

        Raises:
            DataError: if the iterable raises an error, yields something else, or exceeds its length.
        """
        states = seeded_states(stream_seed(seed, epoch))
        iterator: Iterator[Any] | None = None
        for number in itertools.count():
            # Swap in the states of the source while it draws, so that the process's own states do not change.
            outside = random_states()
            restore_random_states(states)
            try:
                iterator = self._start(seed, epoch) if iterator is None else iterator
                batch = next(iterator, _END)
                states = random_states()
            except KeyboardInterrupt:
                raise
            except DataError as error:
                # A worker's error contains its traceback. The last line is the message itself.
                raise DataError(str(error).splitlines()[-1].rpartition("DataError: ")[2]) from error
            except BaseException as error:  # a user's data set may call sys.exit
                raise DataError(f"{self._where}: reading a batch failed: {_reason(error)}") from error
            finally:
                restore_random_states(outside)
            if batch is _END:
                return
            if self._is_bounded and number >= self._batches:
                raise DataError(
                    f"{self._where}: expected {self._batches} batches by its length, got more. Correct its "
                    "__len__, or end it there."
                )
            yield self._move(batch)

    def _start(self, seed: int, epoch: int) -> Iterator[Any]:
        """Seed all generators of the source and start an epoch."""
        for generator in _generators(self.source):
            generator.manual_seed(stream_seed(seed, epoch))
        set_epoch = getattr(getattr(self.source, "sampler", None), "set_epoch", None)
        if callable(set_epoch):
            set_epoch(epoch)
        return iter(self._reader)

    def _move(self, batch: Any) -> Batch:
        source = "a loader yielded"
        if self._prepare is not None:
            batch = call_user(self._prepare, "task.prepare", DataError, batch)
            source = "task.prepare returned"
        is_pair = isinstance(batch, (tuple, list)) and len(batch) == 2
        if not is_pair or next(tensors_in(batch[0]), None) is None:
            raise DataError(
                f"{self._where}: {source} {a_kind(batch)}, expected (inputs, targets) with tensors "
                "in the inputs. A task.prepare can split a batch into such a pair."
            )
        inputs, targets = batch
        if next(tensors_in(targets), None) is None:
            kind = type(targets).__name__
            with guarded(f"{self._where}: targets are a {kind}, expected a tensor", DataError):
                targets = torch.as_tensor(targets)
        with guarded(
            f"{self._where}: a batch cannot be moved to {self._device}", DataError, memory_passes=True
        ):
            return mapped(plain_if_both, moved(inputs, self._device)), moved(targets, self._device)


def _generators(source: object) -> list[torch.Generator]:
    """Return the generators of a DataLoader and of its samplers, which global seeds do not reach."""
    batch_sampler = getattr(source, "batch_sampler", None)
    parts = [source, getattr(source, "sampler", None), batch_sampler, getattr(batch_sampler, "sampler", None)]
    found = [getattr(part, "generator", None) for part in parts]
    return [generator for generator in found if isinstance(generator, torch.Generator)]


def _reason(error: BaseException) -> str:
    """Return an error in one line. If a worker raised it, return the text below the worker's traceback."""
    lines = text_of(error).strip().splitlines()
    if lines and lines[0].startswith("Caught ") and len(lines) > 1:
        last_frame = max((i for i, line in enumerate(lines) if line.startswith('  File "')), default=0)
        below = [line for line in lines[last_frame + 1 :] if not line.startswith("    ")]
        return shortened(" ".join(below) or lines[-1])
    return summary_of(error)


def first_batch(loader: Loader) -> Batch:
    """Return the first batch of epoch 0.

    Raises:
        DataError: if there is no batch.
    """
    batch = next(iter(loader), None)
    if batch is None:
        raise DataError(
            f"data: a loader of {len(loader)} batches yielded none. If it can be read only once, give a "
            "DataLoader or a list."
        )
    return batch


def endless(loader: Loader, seed: int) -> Iterator[Batch]:
    """Yield the batches of epochs 0, 1, 2, ... endlessly."""
    for epoch in itertools.count():
        empty = True
        for batch in loader.batches(seed, epoch):
            empty = False
            yield batch
        if empty:
            raise DataError(f"data: a loader of {len(loader)} batches yielded none in epoch {epoch}.")


def _shift_and_flip(images: Tensor, shifts: Tensor, flips: Tensor, pad: int) -> Tensor:
    """Flip the images [b, H, W, C] that `flips` [b] marks, and shift all by `shifts` [2, b] (down, right)."""
    _, height, width, _ = images.shape
    padded = functional.pad(images, (0, 0, pad, pad, pad, pad))
    # The row and column of the padded image that each pixel is read from: a shift down reads further up.
    rows = torch.arange(height, device=images.device) + pad - shifts[0][:, None]
    columns = torch.arange(width, device=images.device) + pad - shifts[1][:, None]
    columns = torch.where(flips[:, None], columns.flip(1), columns)
    which = torch.arange(len(images), device=images.device)
    return padded[which[:, None, None], rows[:, :, None], columns[:, None, :]]
