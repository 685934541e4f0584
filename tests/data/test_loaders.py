"""Loaders: batches as a function of (seed, epoch), augmentation against a plain reference."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from autoprune.data import (
    Augment,
    DeviceLoader,
    StreamLoader,
    endless,
    from_storable,
    model_seed,
    random_states,
    restore_random_states,
    seeded,
    to_storable,
)
from autoprune.data._loaders import _shift_and_flip
from autoprune.data._randomness import stream_seed
from autoprune.errors import DataError

IMAGES = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (50, 3, 6, 5), dtype=np.uint8))
LABELS = torch.arange(50)
MEAN, STD = torch.tensor([0.5, 0.4, 0.3]), torch.tensor([0.2, 0.3, 0.1])


def test_without_changes_the_order_and_the_memory_stay() -> None:
    changing = device_loader(augment=Augment(pad=2, flip=True))
    plain = changing.without_changes()
    assert same(plain.batches(4, 1), device_loader().batches(4, 1))
    assert not same(changing.batches(4, 1), plain.batches(4, 1))
    assert plain._images is changing._images


class NoisyDataset(Dataset[tuple[Tensor, int]]):
    """Uses all three global generators, as users' transforms do."""

    def __len__(self) -> int:
        return 24

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        noise = torch.rand(1).item() + random.random() + float(np.random.rand())
        return torch.full((1, 2, 2), index + noise), index


def draw_from_all() -> list[float]:
    return [torch.rand(1).item(), random.gauss(0, 1), random.random(), float(np.random.standard_normal())]


def device_loader(*, shuffle: bool = True, augment: Augment | None = None) -> DeviceLoader:
    return DeviceLoader(
        IMAGES, LABELS, batch_size=16, device="cpu", mean=MEAN, std=STD, shuffle=shuffle, augment=augment
    )


def same(left: Iterator[tuple[Tensor, Tensor]], right: Iterator[tuple[Tensor, Tensor]]) -> bool:
    return all(
        torch.equal(a, c) and torch.equal(b, d)
        for (a, b), (c, d) in zip(list(left), list(right), strict=True)
    )


def test_plain_iteration_gives_every_sample_once_normalised() -> None:
    loader = device_loader(shuffle=False)
    inputs, targets = (torch.cat(parts) for parts in zip(*loader, strict=True))
    expected = (IMAGES.float() / 255 - MEAN[:, None, None]) / STD[:, None, None]
    assert torch.allclose(inputs, expected, atol=1e-5)
    assert torch.equal(targets, LABELS)
    assert len(loader) == 4
    assert loader.samples == 50


def test_shuffling_leaves_out_the_last_part_of_a_batch() -> None:
    batches = list(device_loader().batches(0, 0))
    assert [len(targets) for _, targets in batches] == [16, 16, 16]
    assert len(set(torch.cat([targets for _, targets in batches]).tolist())) == 48


def test_batches_depend_on_seed_and_epoch_alone() -> None:
    loader = device_loader(augment=Augment(pad=2, flip=True))
    assert same(loader.batches(3, 5), loader.batches(3, 5))
    assert not same(loader.batches(3, 5), loader.batches(3, 6))
    assert not same(loader.batches(3, 5), loader.batches(4, 5))


def test_shift_and_flip_against_loops() -> None:
    images = IMAGES.permute(0, 2, 3, 1)[:9]
    shifts = torch.tensor([[dy for dy in (-1, 0, 1) for _ in range(3)], [-1, 0, 1] * 3])
    flips = torch.arange(9) % 2 == 0
    got = _shift_and_flip(images, shifts, flips, pad=1)
    for number in range(9):
        down, right = int(shifts[0, number]), int(shifts[1, number])
        expected = torch.zeros_like(images[number])
        for row in range(6):
            for column in range(5):
                if 0 <= row - down < 6 and 0 <= column - right < 5:
                    expected[row, column] = images[number][row - down, column - right]
        assert torch.equal(got[number], expected.flip(1) if flips[number] else expected)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(DataError, match=r"a part without samples"):
        DeviceLoader(IMAGES[:0], LABELS[:0], batch_size=4, device="cpu", mean=MEAN, std=STD)


def test_endless_goes_on_with_the_next_epoch() -> None:
    loader = device_loader(augment=Augment(pad=1))
    several = itertools.islice(endless(loader, 3), 2 * len(loader))
    assert same(several, itertools.chain(loader.batches(3, 0), loader.batches(3, 1)))


@pytest.mark.parametrize("workers", [0, 2])
def test_stream_is_reproducible_and_leaves_global_states(workers: int) -> None:
    source = DataLoader(NoisyDataset(), batch_size=6, shuffle=True, num_workers=workers)
    loader = StreamLoader(source, batches=4, samples=24, device="cpu")
    torch.manual_seed(1)
    before = random_states()
    first = list(loader.batches(0, 2))
    assert torch.equal(before["torch"], torch.get_rng_state())
    assert before["random"] == random_states()["random"]
    random.seed(99)
    torch.manual_seed(99)
    assert same(iter(first), loader.batches(0, 2))
    assert not same(iter(first), loader.batches(0, 3))


def test_stream_seeds_a_generator_of_the_loaders_own() -> None:
    source = DataLoader(
        TensorDataset(torch.rand(12, 1, 2, 2), torch.arange(12)),
        batch_size=4,
        shuffle=True,
        generator=torch.Generator().manual_seed(5),
    )
    loader = StreamLoader(source, batches=3, samples=12, device="cpu")
    assert same(loader.batches(0, 1), loader.batches(0, 1))
    assert not same(loader.batches(0, 1), loader.batches(0, 2))


@pytest.mark.parametrize("batched", [False, True])
def test_stream_seeds_a_samplers_own_generator(batched: bool) -> None:
    own = torch.Generator().manual_seed(5)
    sampler = WeightedRandomSampler([1.0] * 12, 12, generator=own)
    how: dict[str, Any] = {"batch_sampler": BatchSampler(sampler, 4, drop_last=False)}
    if not batched:
        how = {"sampler": sampler, "batch_size": 4}
    dataset = TensorDataset(torch.rand(12, 1, 2, 2), torch.arange(12))
    loader = StreamLoader(DataLoader(dataset, **how), batches=3, samples=12, device="cpu")
    assert same(loader.batches(0, 1), loader.batches(0, 1))
    assert not same(loader.batches(0, 1), loader.batches(0, 2))


def test_a_batch_that_is_none_does_not_end_an_epoch_silently() -> None:
    batch = (torch.zeros(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64))
    loader = StreamLoader([batch, None, batch], batches=3, samples=9, device="cpu")
    with pytest.raises(DataError, match=r"a loader yielded a NoneType, expected \(inputs, targets\)"):
        list(loader)


def test_stream_refuses_other_batches() -> None:
    loader = StreamLoader([torch.zeros(3)], batches=1, samples=3, device="cpu")
    with pytest.raises(DataError, match=r"a loader yielded a Tensor, expected \(inputs, targets\)"):
        next(iter(loader))


def test_random_states_survive_a_file(tmp_path: Path) -> None:
    torch.manual_seed(4)
    random.gauss(0, 1)
    np.random.standard_normal()
    torch.save(to_storable(random_states()), tmp_path / "states.pt")
    expected = draw_from_all()
    restore_random_states(from_storable(torch.load(tmp_path / "states.pt", weights_only=True)))
    assert draw_from_all() == expected


def test_seeded_restores_and_stream_seeds_differ() -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with seeded(8):
        inside = torch.rand(2)
    assert torch.equal(torch.rand(2), expected)
    with seeded(8):
        assert torch.equal(torch.rand(2), inside)
    batches = {stream_seed(seed, epoch) for seed in range(30) for epoch in range(30)}
    models = {model_seed(seed, rung) for seed in range(30) for rung in range(3)}
    assert (len(batches), len(models), len(batches | models)) == (900, 90, 990)


def test_a_loader_that_gives_nothing_does_not_hang_a_training() -> None:
    exhausted = iter([(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64))])
    loader = StreamLoader(exhausted, batches=1, samples=2, device="cpu")
    batches = endless(loader, seed=0)
    next(batches)
    with pytest.raises(DataError, match="yielded none in epoch 1"):
        next(batches)


@pytest.mark.parametrize("channels", [1, 3])
def test_batches_of_one_channel_count_as_contiguous_alone(channels: int) -> None:
    """As a permuted [n, H, W, 1] they would run on the kernels of channels-last images."""
    images = torch.randint(0, 256, (6, channels, 5, 4), dtype=torch.uint8)
    mean, std = torch.zeros(channels), torch.ones(channels)
    stored = DeviceLoader(images, torch.arange(6), batch_size=3, device="cpu", mean=mean, std=std)
    floats = images.float().permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    streamed = StreamLoader([(floats, torch.arange(6))], batches=1, samples=6, device="cpu")
    convolution = torch.nn.Conv2d(channels, 2, 1)
    for inputs, _ in (*stored, *streamed):
        outputs = convolution(inputs)
        assert outputs.is_contiguous() == (channels == 1)
        assert outputs.is_contiguous(memory_format=torch.channels_last) == (channels == 3)
    inputs, _ = next(iter(streamed))
    assert torch.equal(inputs, images.float())
