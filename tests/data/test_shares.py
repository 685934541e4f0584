"""Shares of a training part: together they are the batches of one process, in the same order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from autoprune.data import Loader, StreamLoader, load, share_of
from autoprune.data._shares import part_of, reads_by_index
from autoprune.support.launch import Launch

LAUNCHES = [Launch(rank, 3, rank, 3) for rank in range(3)]


@pytest.mark.parametrize("samples", [3, 4, 7, 64])
def test_parts_cover_a_batch_once(samples: int) -> None:
    parts = [list(range(samples))[part_of(samples, launch)] for launch in LAUNCHES]
    assert [number for part in parts for number in part] == list(range(samples))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_every_process_gets_a_sample_of_a_batch_that_is_too_small() -> None:
    assert [list(range(2))[part_of(2, launch)] for launch in LAUNCHES] == [[0], [0], [1]]
    assert [list(range(1))[part_of(1, launch)] for launch in LAUNCHES] == [[0], [0], [0]]


def images() -> TensorDataset:
    return TensorDataset(torch.arange(20.0).reshape(20, 1, 1, 1), torch.arange(20))


def part(kind: str) -> Loader:
    """Return a part of each kind: in memory, read by worker processes, read whole."""
    if kind == "memory":
        return load("digits", batch_size=32, augment=True).train
    source: object = [(torch.rand(5, 1, 2, 2), torch.arange(5)), (torch.rand(4, 1, 2, 2), torch.arange(4))]
    if kind == "workers":
        source = DataLoader(images(), batch_size=7, shuffle=True, num_workers=1)
    return StreamLoader(source, batches=3 if kind == "workers" else 2, samples=20, device="cpu")  # type: ignore[arg-type]  # a loader of either kind


@pytest.mark.parametrize("kind", ["memory", "workers", "list"])
def test_shares_together_are_the_batches_of_one_process(kind: str) -> None:
    whole = part(kind)
    shares = [share_of(whole, launch) for launch in LAUNCHES]
    assert {len(share) for share in shares} == {len(whole)}
    expected = list(whole.batches(3, 1))

    def joined(number: int, which: int) -> Tensor:
        return torch.cat([batches[number][which] for batches in found])

    found = [list(share.batches(3, 1)) for share in shares]
    for number, (inputs, targets) in enumerate(expected):
        assert torch.equal(joined(number, 0), inputs)
        assert torch.equal(joined(number, 1), targets)
    assert share_of(whole, Launch()) is whole


class Noise(TensorDataset):
    """Augments at random, as training images are."""

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        return torch.rand(1), torch.tensor(index)


def test_workers_read_their_share_only_and_draw_their_own_augmentation() -> None:
    source = DataLoader(Noise(torch.zeros(4)), batch_size=4, num_workers=1)
    assert reads_by_index(source)
    whole = StreamLoader(source, batches=1, samples=4, device="cpu")
    pair = [Launch(rank, 2, rank, 2) for rank in range(2)]
    (first,), (second,), (again,) = (
        list(share_of(whole, launch).batches(0, 0)) for launch in (*pair, pair[1])
    )
    assert not torch.equal(first[0], second[0])
    assert torch.equal(again[0], second[0])
