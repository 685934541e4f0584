"""One threshold over all scales: the channels below it are removed, and a floor keeps some."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.errors import BudgetError, PlanError
from autoprune.graph import Plan, Prunable
from autoprune.space import Budget
from autoprune.sparsity import threshold_plan, threshold_plan_within


def chain(*scales: list[float]) -> Prunable:
    """Trace convolutions in a row, each with a BatchNorm of the given scales, and a linear head."""
    layers: list[nn.Module] = []
    width = 1
    for values in scales:
        norm = nn.BatchNorm2d(len(values))
        norm.weight.data = torch.tensor(values)
        layers += [nn.Conv2d(width, len(values), 1), norm, nn.ReLU()]
        width = len(values)
    net = nn.Sequential(*layers, nn.Flatten(), nn.Linear(width * 4, 2))
    return autoprune.trace(net, torch.zeros(1, 1, 2, 2))


def kept(plan: Plan) -> dict[str, list[int]]:
    return {name: index.tolist() for name, index in plan.items()}


def test_the_smallest_scales_go_wherever_they_are() -> None:
    prunable = chain([0.9, -0.1, 0.5, 0.4], [0.3, 0.8, -0.7, 0.2])
    assert kept(threshold_plan(prunable, share=0.25)) == {"0": [0, 2, 3], "3": [0, 1, 2]}
    assert kept(threshold_plan(prunable, share=0.5)) == {"0": [0, 2], "3": [1, 2]}
    assert kept(threshold_plan(prunable, threshold=0.35)) == {"0": [0, 2, 3], "3": [1, 2]}
    assert kept(threshold_plan(prunable, share=0.0)) == {}


def test_a_share_equals_the_quantile_of_all_scales() -> None:
    rng = np.random.default_rng(0)
    parts = [rng.random(8).astype(np.float32).tolist() for _ in range(3)]
    prunable = chain(*parts)
    limit = np.quantile(np.concatenate(parts), 1 / 3, method="lower")
    assert threshold_plan(prunable, share=1 / 3) == threshold_plan(prunable, threshold=float(limit))


def test_of_equal_scales_the_first_stay() -> None:
    assert kept(threshold_plan(chain([0.0] * 4, [1.0] * 4), share=0.25)) == {"0": [0, 1]}


def test_a_floor_keeps_the_largest_of_each_layer_and_the_share_is_still_met() -> None:
    prunable = chain([0.1, 0.2, 0.3, 0.15], [1.0, 0.9, 0.8, 0.7])
    with pytest.raises(PlanError, match=r"0: the threshold 0.3 would cut all 4 channels .* Give a floor"):
        threshold_plan(prunable, share=0.5)
    assert kept(threshold_plan(prunable, share=0.5, floor=1)) == {"0": [2], "3": [0, 1, 2]}
    assert kept(threshold_plan(prunable, share=0.5, floor=0.5)) == {"0": [1, 2], "3": [0, 1]}
    assert kept(threshold_plan(prunable, threshold=0.75, floor=1)) == {"0": [2], "3": [0, 1, 2]}
    with pytest.raises(PlanError, match=r"share: got 0.6, but the floor leaves 4 of 8 channels to cut"):
        threshold_plan(prunable, share=0.6, floor=0.5)


def test_groups_without_a_batch_norm_stay_whole_unless_they_have_an_importance() -> None:
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1), nn.Flatten(), nn.Linear(16, 2)
    )
    net[1].weight.data = torch.tensor([0.1, 0.2, 0.3, 0.4])
    prunable = autoprune.trace(net, torch.zeros(1, 1, 2, 2))
    assert kept(threshold_plan(prunable, share=0.5)) == {"0": [2, 3]}
    own = {"2": np.array([4.0, 3.0, 2.0, 1.0])}
    assert kept(threshold_plan(prunable, share=0.5, importance=own)) == {"2": [0, 1]}
    with pytest.raises(PlanError, match=r"2: got scales \[3\], expected \[4\] finite numbers"):
        threshold_plan(prunable, share=0.5, importance={"2": np.ones(3)})


def test_a_model_without_batch_norm_is_one_line() -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 4, 1))
    prunable = autoprune.trace(net, torch.zeros(1, 1, 2, 2))
    with pytest.raises(PlanError, match="no searchable group of Sequential has a BatchNorm"):
        threshold_plan(prunable, share=0.5)


def test_a_budget_is_met_with_as_few_channels_as_do() -> None:
    rng = np.random.default_rng(1)
    prunable = chain(*(rng.random(6).tolist() for _ in range(3)))
    dense = int(prunable.cost().macs)
    for budget in (dense, int(0.6 * dense), int(0.3 * dense)):
        plan = threshold_plan_within(prunable, Budget(macs=budget))
        assert int(prunable.cost(plan.widths).macs) <= budget
        cut = 18 - sum(plan.widths.get(name, 6) for name in ("0", "3", "6"))
        if cut:
            one_less = threshold_plan(prunable, share=(cut - 1) / 18, floor=1)
            assert int(prunable.cost(one_less.widths).macs) > budget
    with pytest.raises(
        BudgetError,
        match=r"got 10, but \d+ is the smallest reachable .* lower the floor",
    ):
        threshold_plan_within(prunable, Budget(macs=10))


def test_plans_of_two_passes_compose_to_one_of_the_dense_model() -> None:
    rng = np.random.default_rng(2)
    prunable = chain(*(rng.random(8).tolist() for _ in range(3)))
    first = threshold_plan(prunable, share=0.25, floor=1)
    smaller = autoprune.rebuild(prunable, first)
    with torch.no_grad():
        for norm in [module for module in smaller.modules() if isinstance(module, nn.BatchNorm2d)]:
            norm.weight.copy_(torch.from_numpy(rng.random(norm.num_features)))
    again = autoprune.trace(smaller, torch.zeros(1, 1, 2, 2))
    second = threshold_plan(again, share=0.4, floor=1)
    composed = first.then(second)
    smallest, at_once = autoprune.rebuild(again, second), autoprune.rebuild(prunable, composed)
    assert autoprune.verify(prunable, composed, at_once).right
    shapes = [{name: each.shape for name, each in net.state_dict().items()} for net in (smallest, at_once)]
    assert shapes[0] == shapes[1]
    for layer in ("0", "3", "6"):  # the scales were changed between the passes, the filters were not
        weights = [net.get_parameter(f"{layer}.weight") for net in (smallest, at_once)]
        assert torch.equal(*weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give one of the two"),
        ({"share": 0.1, "threshold": 0.1}, "Give one of the two"),
        ({"share": 1.0}, r"share: got 1.0, expected the share of channels to cut, in \[0, 1\)"),
        ({"share": "half"}, "share: got 'half', expected"),
        ({"threshold": float("nan")}, "threshold: got nan"),
        ({"share": 0.1, "floor": 0}, "floor: got 0, expected channels"),
        ({"share": 0.1, "floor": 1.5}, "floor: got 1.5, expected channels"),
    ],
)
def test_bad_arguments_are_one_line(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        threshold_plan(chain([0.1, 0.2]), **arguments)
