from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from autoprune.reconstruction import Reader, eliminate
from autoprune.reconstruction import _elimination as elimination
from autoprune.reconstruction._elimination import errors_along

WIDTH, SIZE = 5, 2


def reader(seed: int, *, outputs: int = 4, copy_of: tuple[int, int] | None = None) -> Reader:
    """Return a reader of random inputs; with `copy_of=(a, b)` channel a holds the same values as b."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(400, WIDTH, SIZE, generator=generator, dtype=torch.float64)
    inputs += 0.5 * torch.randn(400, 1, 1, generator=generator, dtype=torch.float64)
    if copy_of is not None:
        inputs[:, copy_of[0]] = inputs[:, copy_of[1]]
    flat = inputs.flatten(1)
    weight = torch.randn(outputs, WIDTH * SIZE, generator=generator, dtype=torch.float64)
    return Reader(flat.T @ flat / len(flat), weight, torch.arange(WIDTH * SIZE).reshape(WIDTH, SIZE))


def error_without(readers: list[Reader], gone: set[int]) -> float:
    """Refit all readers without some channels, by brute force, and return their summed relative errors."""
    total = 0.0
    for each in readers:
        kept = each.index[[c for c in range(WIDTH) if c not in gone]].flatten()
        gram, moment = each.moment[kept[:, None], kept], each.moment
        fitted = each.weight @ moment[:, kept] @ torch.linalg.inv(gram) if len(kept) else torch.zeros(4, 0)
        full = torch.zeros_like(each.weight)
        full[:, kept] = fitted.to(full.dtype)
        difference: Tensor = each.weight - full
        mean_square = ((each.weight @ moment) * each.weight).sum()
        total += float(((difference @ moment) * difference).sum() / mean_square)
    return total


def test_updates_that_are_collected_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [eliminate([reader(6), reader(7)], WIDTH)]
    for collected in (1, 2 * SIZE, 10**6):
        monkeypatch.setattr(elimination, "COLLECTED", collected)
        found.append(eliminate([reader(6), reader(7)], WIDTH))
    for each in found[1:]:
        np.testing.assert_array_equal(each.order, found[0].order)
        np.testing.assert_allclose(each.errors, found[0].errors, rtol=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_each_step_is_the_cheapest_by_brute_force(seed: int) -> None:
    readers = [reader(seed), reader(seed + 50)]
    found = eliminate(readers, WIDTH, ridge=1e-12)
    gone: set[int] = set()
    for channel, error in zip(found.order.tolist(), found.errors, strict=True):
        costs = {c: error_without(readers, gone | {c}) for c in range(WIDTH) if c not in gone}
        assert channel == min(costs, key=costs.__getitem__)
        assert error == pytest.approx(costs[channel], rel=1e-6)
        gone.add(channel)


@pytest.mark.parametrize("ridge", [1e-9, 1e-3])
def test_errors_along_a_known_order_are_those_of_the_elimination_and_of_brute_force(ridge: float) -> None:
    readers = [reader(1), reader(51)]
    found = eliminate(readers, WIDTH, ridge=ridge)
    np.testing.assert_allclose(errors_along(readers, found.order, ridge=ridge), found.errors, rtol=1e-6)
    order = np.array([3, 0, 4, 1, 2])
    errors = errors_along(readers, order, ridge=1e-12)
    for step, error in enumerate(errors):
        assert error == pytest.approx(error_without(readers, set(order[: step + 1].tolist())), rel=1e-6)


def test_errors_never_fall() -> None:
    errors = eliminate([reader(1)], WIDTH).errors
    assert np.all(np.diff(errors) >= 0)
    assert errors[-1] == pytest.approx(1, abs=0.01)  # without any channel all of the output is lost


@pytest.mark.parametrize(("copy", "original"), [(0, 3), (3, 0)])
def test_a_copy_goes_first_and_costs_nothing(copy: int, original: int) -> None:
    found = eliminate([reader(2, copy_of=(copy, original))], WIDTH, ridge=1e-9)
    assert found.order[0] in (copy, original)
    assert found.errors[0] == pytest.approx(0, abs=1e-6)


def test_a_channel_that_nothing_weighs_goes_first() -> None:
    plain = reader(3)
    plain.weight[:, plain.index[2]] = 0
    moment = torch.eye(WIDTH * SIZE, dtype=torch.float64)
    assert eliminate([Reader(moment, plain.weight, plain.index)], WIDTH).order[0] == 2
