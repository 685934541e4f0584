"""Plans of passes compose, although a pass drops the layers that name, order or tie channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.data import seeded
from autoprune.graph import Plan, Prunable
from autoprune.training import weights_hash
from tests.residual import BLOCK_CASES

NONE = np.empty(0, np.int64)
DROPPING = [name for name, case in BLOCK_CASES.items() if case.blocks]


def second_pass(prunable: Prunable, first: Plan) -> Prunable:
    """Return the model that a first pass leaves, traced for the second one."""
    small = autoprune.rebuild(prunable, first)
    return autoprune.trace(small, prunable.example_inputs, rebuilt_from=(prunable, first))


@pytest.mark.parametrize("name", DROPPING)
def test_a_second_pass_composes_with_a_first_one_that_drops_a_block(name: str) -> None:
    case = BLOCK_CASES[name]
    with seeded(0):
        prunable = autoprune.trace(case.make().eval(), case.inputs)
    for block in prunable.blocks:
        ratios = {group.name: 0.75 for group in prunable.searchable if group.name not in block.groups}
        first = autoprune.make_plan(prunable, {**ratios, block.name: 0})
        again = second_pass(prunable, first)
        assert {group.name for group in again.searchable} <= {group.name for group in prunable.searchable}
        second = autoprune.make_plan(again, 0.5, "random")
        assert second.widths != {group.name: group.width for group in again.searchable}
        both = first.then(second)
        twice, once = autoprune.rebuild(again, second), autoprune.rebuild(prunable, both)
        assert weights_hash(twice) == weights_hash(once)
        assert prunable.cost(both.widths).params == again.cost(second.widths).params


class Flipped(nn.Module):
    """A residual block whose projection has its channels in another order than its branch."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 1))
        self.project, self.head = nn.Conv2d(3, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x) + self.project(x).flip(1)
        return self.head(y.mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


def test_channels_keep_their_numbers_after_the_layer_that_numbered_them_is_gone() -> None:
    with seeded(0):
        prunable = autoprune.trace(Flipped().eval(), torch.zeros(1, 3, 4, 4))
    (block,) = prunable.blocks
    group = prunable.group("branch.2")
    first = Plan({block.name: NONE, group.name: np.array([0, 1, 3, 5])})
    again = second_pass(prunable, first)
    alone = autoprune.trace(autoprune.rebuild(prunable, first), prunable.example_inputs)
    assert [each.name for each in alone.searchable] == ["project"] != [group.name]
    second = Plan({group.name: np.array([1, 2])})
    twice = autoprune.rebuild(again, second)
    assert weights_hash(twice) == weights_hash(autoprune.rebuild(prunable, first.then(second)))
    kept = prunable.model.get_parameter("project.weight")[[2, 4]]  # channels 3 and 1, flipped
    assert torch.equal(twice.get_parameter("project.weight"), kept)


def test_groups_that_were_frozen_stay_frozen_without_the_layer_that_froze_them() -> None:
    case = BLOCK_CASES["projection"]
    prunable = autoprune.trace(case.make().eval(), case.inputs, frozen=["blocks.0.conv2"])
    first = Plan({prunable.blocks[0].name: NONE})
    again = second_pass(prunable, first)
    assert again.group("blocks.0.conv2").frozen == "blocks.0.conv2: frozen by the user"
