from __future__ import annotations

import pytest
import torch

from autoprune.reconstruction._regression import Regression
from autoprune.reconstruction._uses import Cut

GROUPS, ROWS, PATCH, OUTPUTS = 2, 60, 5, 3


@pytest.mark.parametrize("constant", [True, False])
def test_parts_of_the_rows_give_the_least_squares_solution_of_all(constant: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = 2 + torch.randn(GROUPS, ROWS, PATCH, generator=generator, dtype=torch.float64)
    outputs = 1 + torch.randn(GROUPS, ROWS, OUTPUTS, generator=generator, dtype=torch.float64)
    sums = Regression()
    for part in (slice(0, 7), slice(7, 41), slice(41, ROWS)):
        sums.add(inputs[:, part], outputs[:, part])
    assert sums.rows == ROWS
    old = torch.zeros(GROUPS, OUTPUTS, PATCH, dtype=torch.float64)
    found = sums.solve(old, ridge=1e-13, constant=constant)
    columns = torch.cat([inputs, torch.ones(GROUPS, ROWS, int(constant), dtype=torch.float64)], dim=2)
    expected = torch.linalg.lstsq(columns, outputs).solution  # [groups, patch (+ 1), outputs]
    torch.testing.assert_close(found.fit.weight, expected[:, :PATCH].mT, rtol=1e-8, atol=1e-8)
    last = expected[:, PATCH] if constant else torch.zeros(GROUPS, OUTPUTS, dtype=torch.float64)
    torch.testing.assert_close(found.constant, last, rtol=1e-8, atol=1e-8)
    given = inputs @ found.fit.weight.mT
    torch.testing.assert_close(found.mean, given.mean(dim=1))
    left = outputs - given - found.constant[:, None]
    torch.testing.assert_close(found.fit.lost, left.square().mean(dim=1), rtol=1e-8, atol=1e-8)


def test_sums_of_fewer_inputs_and_outputs_are_those_of_the_rows_cut() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(2, 30, 6, generator=generator, dtype=torch.float64)
    outputs = torch.randn(2, 30, 3, generator=generator, dtype=torch.float64)
    sums, fewer = Regression(), Regression()
    sums.add(inputs, outputs)
    kept = Cut(torch.tensor([0, 1]), torch.tensor([0, 2, 3, 4]), torch.tensor([1, 2, 5]))
    fewer.add(inputs[..., kept.kept], torch.stack([outputs[0][:, [0, 2]], outputs[1][:, [0, 1]]]))
    old = torch.randn(2, 2, 3, generator=generator, dtype=torch.float64)
    found = [each.solve(old, ridge=0.1, constant=True) for each in (sums.cut(kept), fewer)]
    torch.testing.assert_close(found[0].fit.weight, found[1].fit.weight)
    torch.testing.assert_close(found[0].constant, found[1].constant)
