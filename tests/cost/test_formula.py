"""The cost formula: predicted MACs and parameters equal the counted ones, for every net and plan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map
from torch.utils.flop_counter import FlopCounterMode

from autoprune.errors import PlanError
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from tests.models import CASES, Flatten, Residual, image


def counted(model: nn.Module, inputs: object) -> tuple[int, int]:
    """Return (MACs, parameters) as torch counts them on the meta device."""
    params = sum(parameter.numel() for parameter in model.parameters())
    model = model.to("meta").eval()  # which unties shared parameters, so they are counted before
    moved = tree_map(lambda v: v.to("meta") if isinstance(v, Tensor) else v, inputs)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(**moved) if isinstance(moved, dict) else model(*moved)
    return counter.get_total_flops() // 2, params


def random_plan(prunable: Prunable, seed: int, *, crossing: bool = True) -> Plan:
    """Return a plan that keeps a random part, at least one channel, of each group."""
    rng = np.random.default_rng(seed)
    return Plan(
        {
            group.name: rng.permutation(group.width)[: rng.integers(1, group.width + 1)]
            for group in prunable.searchable
            if crossing or group.crosses is None
        }
    )


@pytest.mark.parametrize("name", CASES)
def test_predicted_equals_counted(name: str) -> None:
    case = CASES[name]
    prunable = trace(case.make(), case.inputs)
    dense = prunable.cost()
    assert (dense.macs, dense.params) == counted(case.make(), case.inputs)
    for seed in range(5):
        plan = random_plan(prunable, seed)
        cost = prunable.cost(plan.widths)
        assert (cost.macs, cost.params) == counted(rebuild(prunable, plan), case.inputs)


def test_closed_form() -> None:
    prunable = trace(Flatten(), image())
    # conv: 3 x 3 kernel, 3 inputs, 4 x 4 positions; fc1 reads 16 positions a channel; biases are parameters.
    cost = prunable.cost({"conv": 2, "fc1": 3})
    assert cost.macs == 2 * 27 * 16 + 32 * 3 + 3 * 5
    assert cost.params == (2 * 27 + 2) + (32 * 3 + 3) + (3 * 5 + 5)
    assert cost.flops == 2 * cost.macs


def test_matrix_equals_one_by_one() -> None:
    prunable = trace(Residual(), image())
    names = [group.name for group in prunable.groups]
    rows = np.array([[group.width for group in prunable.groups]] * 12, dtype=np.int64)
    rows[:, names.index("stem")] = np.resize([1, 4, 8], 12)
    rows[:, names.index("inner1")] = np.resize([1, 2, 5, 6], 12)
    many = prunable.cost(rows)
    for number, row in enumerate(rows):
        one = prunable.cost(dict(zip(names, row.tolist(), strict=True)))
        assert (np.ravel(many.macs)[number], np.ravel(many.params)[number]) == (one.macs, one.params)


def test_carried_cost_of_a_group() -> None:
    prunable = trace(Residual(), image())
    # inner1 is produced by inner1 (8 -> 6, 8 x 8 positions) and read by outer1 (6 -> 8); parameters: two
    # weights and one bias (outer1's bias belongs to the stream).
    assert prunable.formula.carried(prunable.position["inner1"]) == (2 * 48 * 64, 48 + 6 + 48)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"iner1": 3}, 'iner1: no such channel group. Did you mean "inner1"'),
        ({"inner1": 0}, r"inner1: got width 0..0, expected 1..6"),
        ({"inner1": 7}, r"inner1: got width 7..7, expected 1..6"),
        ({"head": 4}, "head: got width 4, expected 5: the group is frozen"),
        ({"inner1": 2.9}, r"width 2.9, expected an integer in 1..6\. Keep ratios go to make_plan"),
        ({"inner1": True}, "inner1: got width True, expected an integer in 1..6"),
        (np.ones((3, 2), np.int64), r"widths: got int64 \[3, 2\], expected integers \[candidates, 4\]"),
        (np.ones((3, 4)), r"widths: got float64 \[3, 4\], expected integers"),
        (np.ones((3, 4), np.int64), r": got width 1, expected \d+: the group is frozen \("),
    ],
)
def test_wrong_widths_are_refused(widths: dict[str, int] | NDArray[np.int64], message: str) -> None:
    prunable = trace(Residual(), image())
    with pytest.raises(PlanError, match=message):
        prunable.cost(widths)


def test_an_einsum_with_nothing_left_to_sum_counts_nothing() -> None:
    class Scores(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.head = nn.Linear(5, 6), nn.Linear(5, 6), nn.Linear(7, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.einsum("bic,bjc->bij", self.q(x), self.k(x)))  # type: ignore[no-any-return]  # as modules do

    inputs = torch.zeros(1, 7, 5)
    prunable = trace(Scores(), inputs)
    for width in (6, 2, 1):
        small = rebuild(prunable, Plan({"q": np.arange(width)}))
        cost = prunable.cost({"q": width})
        assert (cost.macs, cost.params) == counted(small, (inputs,))
