"""Sizes: the meaning of a number that was seen at a few widths."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.cost.polynomial import Size
from autoprune.graph import Prunable
from autoprune.latency.table._operator_sizes import MOST_OBSERVATIONS, observe
from tests.models import CASES


class Chain(nn.Module):
    """Several groups of one small width."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *(nn.Conv2d(before, after, 1) for before, after in zip((3, *widths), (*widths, 5), strict=True))
        )

    def forward(self, images: Tensor) -> Tensor:
        return self.layers(images)  # type: ignore[no-any-return]  # modules return Any


def traced(*widths: int) -> Prunable:
    return autoprune.trace(Chain(*widths).eval(), torch.zeros(1, 3, 4, 4))


@pytest.mark.parametrize("widths", [(2, 2), (2, 2, 2), (3, 3, 3), (2, 8, 2, 8, 8), (16, 16, 16, 16)])
def test_groups_of_one_width_are_distinguished(widths: tuple[int, ...]) -> None:
    prunable = traced(*widths)
    sizes = observe(prunable)
    assert len(sizes.widths) <= MOST_OBSERVATIONS
    for group in prunable.searchable:
        place = prunable.position[group.name]
        times = tuple(int(other == place) for other in range(len(prunable.groups)))
        assert sizes.find(sizes.widths[:, place].tolist()) == Size(0, times)


@pytest.mark.parametrize("name", ["residual", "concat", "chunked", "squeeze_excite", "shuffled", "attention"])
def test_what_is_known_follows_the_widths(name: str) -> None:
    case = CASES[name]
    prunable = autoprune.trace(case.make().eval(), case.inputs)
    sizes = observe(prunable)
    full = [group.width for group in prunable.groups]
    np.testing.assert_array_equal(sizes.widths[0], full)
    assert (sizes.widths >= 1).all()
    assert (sizes.widths <= full).all()
    assert sizes.known
    for numbers, size in sizes.known.items():
        np.testing.assert_array_equal(size.at(sizes.widths), numbers)
        factor, unit = size.unit
        np.testing.assert_array_equal(factor * unit.at(sizes.widths), numbers)


def test_numbers_that_no_size_explains() -> None:
    sizes = observe(traced(8, 6))
    count = len(sizes.widths)
    assert sizes.find([7] * count) == 7
    assert sizes.find(list(range(1000, 1000 + count))) is None
