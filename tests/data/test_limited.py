"""Data of which only the first batches are read."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from autoprune.data import limited, load, wrap_loaders


@pytest.mark.parametrize(("most", "batches"), [(1, 1), (64, 1), (65, 2), (10_000, 22)])
def test_the_first_batches_of_each_part_are_kept_whole(most: int, batches: int) -> None:
    data = load("digits", batch_size=64, val_fraction=0.02)
    few = limited(data, most)
    assert len(few.train) == batches
    assert few.train.samples == batches * 64
    assert few.fingerprint == data.fingerprint
    for (inputs, targets), (wanted, labels) in zip(
        few.train.batches(3, 5), data.train.batches(3, 5), strict=batches == 22
    ):
        assert torch.equal(inputs, wanted)
        assert torch.equal(targets, labels)
    assert len(list(few.train)) == batches
    assert sum(len(labels) for _, labels in few.val) >= min(most, data.val.samples)


def test_parts_that_are_missing_stay_missing() -> None:
    part = TensorDataset(torch.zeros(40, 3, 4, 4), torch.arange(40) % 5)
    few = limited(wrap_loaders((DataLoader(part, 8), DataLoader(part, 8))), 10)
    assert few.test is few.plain is None
    assert (len(few.train), len(few.val), few.val.samples) == (2, 2, 16)
