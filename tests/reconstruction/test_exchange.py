"""Local search: swaps of kept and removed channels, against brute-force refits."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch

from autoprune.reconstruction import Reader, eliminate, exchange
from tests.reconstruction.test_elimination import SIZE, WIDTH, error_without

SEEDS = range(40)
KEPT = 2


def reader(seed: int) -> Reader:
    """Return a reader whose inputs are mixtures of fewer sources, so that greedy choices may be wrong."""
    generator = torch.Generator().manual_seed(seed)
    sources = torch.randn(400, 6, generator=generator, dtype=torch.float64)
    mixed = sources @ torch.randn(6, WIDTH * SIZE, generator=generator, dtype=torch.float64)
    mixed += 0.3 * torch.randn(400, WIDTH * SIZE, generator=generator, dtype=torch.float64)
    weight = torch.randn(4, WIDTH * SIZE, generator=generator, dtype=torch.float64)
    return Reader(mixed.T @ mixed / len(mixed), weight, torch.arange(WIDTH * SIZE).reshape(WIDTH, SIZE))


def errors_of(readers: list[Reader], kept: int) -> dict[frozenset[int], float]:
    """Refit on every set of so many channels, by brute force."""
    sets = combinations(range(WIDTH), kept)
    return {frozenset(chosen): error_without(readers, set(range(WIDTH)) - set(chosen)) for chosen in sets}


def both(readers: list[Reader], kept: int) -> tuple[frozenset[int], frozenset[int]]:
    """Return the channels that elimination keeps, and those after the swaps."""
    first = eliminate(readers, WIDTH, ridge=1e-12).order[WIDTH - kept :]
    return frozenset(first.tolist()), frozenset(exchange(readers, first, ridge=1e-12).tolist())


def test_swaps_reach_the_optimum_more_often_than_elimination_alone() -> None:
    reached = np.zeros(2, dtype=int)
    for seed in SEEDS:
        readers = [reader(seed), reader(seed + 50)]
        errors = errors_of(readers, KEPT)
        eliminated, exchanged = both(readers, KEPT)
        assert len(exchanged) == KEPT
        assert errors[exchanged] <= errors[eliminated] + 1e-9
        optimum = min(errors.values())
        reached += [errors[kept] <= optimum + 1e-9 for kept in (eliminated, exchanged)]
    assert reached[1] > reached[0]


@pytest.mark.parametrize("seed", range(4))
def test_no_swap_is_left_that_lowers_the_error(seed: int) -> None:
    readers = [reader(seed), reader(seed + 50)]
    errors = errors_of(readers, KEPT)
    worst = max(errors, key=errors.__getitem__)
    kept = frozenset(exchange(readers, sorted(worst), ridge=1e-12).tolist())
    one_swap = [errors[other] for other in errors if len(other & kept) == KEPT - 1]
    assert errors[kept] <= min(one_swap) + 1e-9
    assert errors[kept] < errors[worst]


def test_all_channels_or_none_leave_nothing_to_swap() -> None:
    readers = [reader(0)]
    assert exchange(readers, range(WIDTH)).tolist() == list(range(WIDTH))
    assert exchange(readers, []).tolist() == []
