"""The share that one process has in the batches of a training part, if several processes train together.

All processes make the same batches, and each takes consecutive samples of every batch. A DataLoader with
workers reads the samples of its share only. Its order is the same as in one process, but each process draws
its own augmentations.

    for inputs, targets in share_of(data.train, group).batches(seed=0, epoch=3): ...
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset

from autoprune.data._loaders import Batch, DeviceLoader, Loader, StreamLoader
from autoprune.data._randomness import stream_seed
from autoprune.support.launch import Launch
from autoprune.support.structures import mapped, samples_in


def share_of(loader: Loader, launch: Launch) -> Loader:
    """Return the share of this process. Its length is that of the whole part."""
    if launch.size == 1:
        return loader
    if isinstance(loader, DeviceLoader):
        return loader.shared(lambda samples: part_of(samples, launch))
    if isinstance(loader, StreamLoader) and reads_by_index(loader.source):
        return loader.reading(_read_in_shares(loader.source, launch))
    return _Share(loader, launch)


def part_of(samples: int, launch: Launch) -> slice:
    """Return the samples of a batch that belong to a process.

    If there are fewer samples than processes, some processes get the same sample.
    """
    first, last = (samples * rank // launch.size for rank in (launch.rank, launch.rank + 1))
    first = min(first, samples - 1)
    return slice(first, max(last, first + 1))


def reads_by_index(source: object) -> bool:
    """Return whether a loader has workers that read samples by their numbers, in batches of numbers."""
    return (
        isinstance(source, DataLoader)
        and source.num_workers > 0
        and source.batch_sampler is not None
        and not isinstance(source.dataset, IterableDataset)
    )


@dataclass(frozen=True)
class _Share:
    """Takes the share of a process from whole batches."""

    loader: Loader
    launch: Launch

    @property
    def samples(self) -> int:
        return self.loader.samples

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        return self.batches(0, 0)

    def batches(self, seed: int, epoch: int) -> Iterator[Batch]:
        for inputs, targets in self.loader.batches(seed, epoch):
            samples = samples_in(inputs)
            part = part_of(samples, self.launch)
            if isinstance(inputs, list):  # arguments of the model, not samples
                inputs = tuple(inputs)
            yield _cut(inputs, part, samples), _cut(targets, part, samples)


def _cut(value: Any, part: slice, samples: int) -> Any:
    """Return the samples in `part` of tensors, and of lists with one item for each sample."""
    if isinstance(value, list) and len(value) == samples:
        return value[part]
    if isinstance(value, Mapping):
        return {name: _cut(each, part, samples) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_cut(each, part, samples) for each in value)
    return mapped(lambda each: each[part] if each.ndim and len(each) == samples else each, value)


@dataclass(frozen=True)
class _Numbers:
    """Takes the share of a process from batches of sample numbers."""

    batches: Any
    launch: Launch

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Sequence[int]]:
        for numbers in self.batches:
            numbers = list(numbers)
            yield numbers[part_of(len(numbers), self.launch)]


@dataclass(frozen=True)
class _SeedWorker:
    """Seeds a worker as its loader does, and gives each process of a group other seeds."""

    rank: int
    then: Callable[[int], None] | None

    def __call__(self, worker: int) -> None:
        seed = stream_seed(torch.initial_seed(), self.rank)
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        if self.then is not None:
            self.then(worker)


def _read_in_shares(source: Any, launch: Launch) -> Any:
    """Return a loader of the same data set that reads the samples of one process only."""
    return DataLoader(
        source.dataset,
        batch_sampler=_Numbers(source.batch_sampler, launch),  # type: ignore[arg-type]  # any iterable with a length does
        num_workers=source.num_workers,
        collate_fn=source.collate_fn,
        pin_memory=source.pin_memory,
        timeout=source.timeout,
        worker_init_fn=_SeedWorker(launch.rank, source.worker_init_fn),
        multiprocessing_context=source.multiprocessing_context,
        generator=source.generator,
        prefetch_factor=source.prefetch_factor,
        persistent_workers=source.persistent_workers,
    )
