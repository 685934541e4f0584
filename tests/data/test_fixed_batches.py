"""Batches that are drawn once: the same ones as the loader's own, and samples spread over a whole part."""

from __future__ import annotations

import itertools

import pytest
import torch

from autoprune.data import _fixed_batches, endless, first_batches, spread_samples
from autoprune.data._loaders import DeviceLoader


def numbered(samples: int, batch_size: int, *, shuffle: bool = False) -> DeviceLoader:
    """A part whose labels are the samples' numbers."""
    return DeviceLoader(
        torch.zeros(samples, 1, 2, 2, dtype=torch.uint8),
        torch.arange(samples),
        batch_size=batch_size,
        device="cpu",
        mean=torch.zeros(1),
        std=torch.ones(1),
        shuffle=shuffle,
    )


@pytest.mark.parametrize("count", [1, 3, 5])
def test_first_batches_are_those_of_the_loader(count: int) -> None:
    loader = numbered(12, 4, shuffle=True)
    kept = first_batches(loader, count, seed=7)
    expected = [labels.tolist() for _, labels in itertools.islice(endless(loader, 7), count)]
    assert [labels.tolist() for _, labels in kept] == expected
    assert [labels.tolist() for _, labels in kept.batches(1, 2)] == expected
    assert (len(kept), kept.samples) == (count, 4 * count)


@pytest.mark.parametrize(
    ("samples", "batch", "most"), [(100, 7, 10), (103, 10, 40), (50, 50, 49), (64, 8, 1)]
)
def test_samples_are_spread_over_the_part(samples: int, batch: int, most: int) -> None:
    kept = spread_samples(numbered(samples, batch), most)
    numbers = torch.cat([labels for _, labels in kept])
    assert kept.samples == len(numbers) == most
    assert numbers.tolist() == [int(samples / most * number) for number in range(most)]


def test_a_small_part_is_kept_whole_and_large_images_in_smaller_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = spread_samples(numbered(20, 8), 1000)
    assert torch.cat([labels for _, labels in whole]).tolist() == list(range(20))
    monkeypatch.setattr(_fixed_batches, "MOST_ELEMENTS", 4 * 5)
    assert spread_samples(numbered(20, 8), 1000).samples == 5
