"""Greedy and independent rankings, the residual rule, and the control that removes the largest filters."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.criteria import Rule, importance
from autoprune.errors import PlanError
from autoprune.graph import Prunable
from autoprune.zoo import make_model
from tests.models import Residual

GREEDY = Rule(ranking="greedy")


def chain(first: list[float], second: list[list[float]]) -> Prunable:
    """Trace two 1 x 1 convolutions with these weights, of one input channel, and a head."""
    net = nn.Sequential(
        nn.Conv2d(1, len(first), 1, bias=False),
        nn.Conv2d(len(first), len(second), 1, bias=False),
        nn.Conv2d(len(second), 2, 1),
    )
    with torch.no_grad():
        net.get_parameter("0.weight").copy_(torch.tensor(first).reshape(-1, 1, 1, 1))
        net.get_parameter("1.weight").copy_(torch.tensor(second)[..., None, None])
    return autoprune.trace(net, torch.zeros(1, 1, 4, 4))


@pytest.fixture(scope="module")
def resnet() -> Prunable:
    torch.manual_seed(0)
    return autoprune.trace(make_model("resnet20", classes=4, in_channels=1), torch.zeros(1, 1, 16, 16))


def test_greedy_leaves_kernels_out_that_read_removed_maps() -> None:
    # By hand: filter 1 of the first layer goes. In full, the sums of the second layer are 9, 6 and 5, so its
    # filter 2 goes. Without the kernels that read map 1 they are 1, 6 and 5, so filter 0 goes.
    prunable = chain([3.0, 1.0, 2.0], [[1.0, 8.0, 0.0], [3.0, 0.0, 3.0], [2.0, 0.0, 3.0]])
    widths = {"0": 2, "1": 2}
    independent = autoprune.make_plan(prunable, widths)
    greedy = autoprune.make_plan(prunable, widths, rule=GREEDY)
    assert {name: keep.tolist() for name, keep in independent.items()} == {"0": [0, 2], "1": [0, 1]}
    assert {name: keep.tolist() for name, keep in greedy.items()} == {"0": [0, 2], "1": [1, 2]}


@pytest.mark.parametrize("criterion", ["l1", "fpgm", "taylor"])
def test_greedy_and_independent_agree_on_the_first_layer(resnet: Prunable, criterion: str) -> None:
    data = [(torch.randn(8, 1, 16, 16), torch.arange(8) % 4)]
    plans = [autoprune.make_plan(resnet, 0.5, criterion, data, rule=rule) for rule in (Rule(), GREEDY)]
    np.testing.assert_array_equal(plans[0]["conv1"], plans[1]["conv1"])
    assert plans[0] != plans[1]
    assert plans[0].widths == plans[1].widths


def test_greedy_ranks_each_group_in_the_rebuilt_model_so_far(resnet: Prunable) -> None:
    # The sum over a kept filter of the rebuilt model leaves out exactly the kernels that were removed.
    greedy = autoprune.make_plan(resnet, {"conv1": 9, "layer1.0.conv1": 5}, rule=GREEDY)
    first = autoprune.make_plan(resnet, {"conv1": 9})
    small = autoprune.rebuild(resnet, first)
    sums = small.get_parameter("layer1.0.conv1.weight").detach().double().abs().sum(dim=(1, 2, 3))
    np.testing.assert_array_equal(greedy["layer1.0.conv1"], sums.argsort(descending=True)[:5].sort().values)


def test_greedy_of_all_channels_changes_nothing_and_leaves_the_model_alone(resnet: Prunable) -> None:
    before = copy.deepcopy(resnet.model.state_dict())
    assert not autoprune.make_plan(resnet, 1.0, rule=GREEDY)
    autoprune.make_plan(resnet, 0.5, rule=GREEDY)
    assert all(torch.equal(value, resnet.model.state_dict()[name]) for name, value in before.items())


def test_a_greedy_plan_rebuilds_exactly(resnet: Prunable) -> None:
    plan = autoprune.make_plan(resnet, 0.4, rule=Rule(ranking="greedy", residual="shortcut"))
    assert autoprune.verify(resnet, plan, autoprune.rebuild(resnet, plan)) <= 1e-9


def test_a_projection_alone_ranks_its_stage(resnet: Prunable) -> None:
    ranked = importance(resnet, "l1", rule=Rule(residual="shortcut"))
    projection = resnet.model.get_parameter("layer2.0.shortcut.0.weight").detach().double()
    np.testing.assert_allclose(ranked["layer2.0.conv2"], projection.abs().sum(dim=(1, 2, 3)), rtol=1e-12)
    # Groups outside the streams are ranked as always.
    np.testing.assert_array_equal(ranked["layer2.0.conv1"], importance(resnet, "l1")["layer2.0.conv1"])


def test_the_batchnorm_of_the_projection_ranks_by_scale(resnet: Prunable) -> None:
    prunable = dataclasses.replace(resnet, model=copy.deepcopy(resnet.model))
    scale = prunable.model.get_parameter("layer2.0.shortcut.1.weight")
    scale.data.copy_(torch.linspace(2, 1, len(scale)))
    ranked = importance(prunable, "bn", rule=Rule(residual="shortcut"))
    np.testing.assert_allclose(ranked["layer2.0.conv2"], scale.detach().double())


def test_the_largest_filters_go_as_a_control(resnet: Prunable) -> None:
    least = autoprune.make_plan(resnet, {"conv1": 12})
    most = autoprune.make_plan(resnet, {"conv1": 4}, rule=Rule(remove="most"))
    assert sorted([*least["conv1"], *most["conv1"]]) == list(range(16))


def test_a_model_without_residual_stream_is_refused() -> None:
    prunable = chain([1.0, 2.0], [[1.0, 1.0]] * 2)
    with pytest.raises(PlanError, match="Sequential has no residual stream"):
        autoprune.make_plan(prunable, 0.5, rule=Rule(residual="shortcut"))


def test_a_criterion_of_other_layers_does_not_rank_by_the_shortcut(resnet: Prunable) -> None:
    data = [(torch.randn(4, 1, 16, 16), torch.arange(4))]
    with pytest.raises(PlanError, match=r'criterion "taylor" reads more than .* Choose one of "l1"'):
        autoprune.make_plan(resnet, 0.5, "taylor", data, rule=Rule(residual="shortcut"))


def test_lasso_by_layers_takes_no_other_rule(resnet: Prunable) -> None:
    with pytest.raises(PlanError, match='"lasso" chooses the channels of each group itself'):
        autoprune.make_plan(resnet, 0.5, "lasso", [], rule=Rule(ranking="greedy", remove="most"))
    with pytest.raises(PlanError, match='criterion "lasso": needs images'):
        autoprune.make_plan(resnet, 0.5, "lasso", rule=GREEDY)


def test_wrong_values_and_groups_are_refused(resnet: Prunable) -> None:
    with pytest.raises(PlanError, match='ranking: got \'random\', expected "independent" or "greedy"'):
        Rule(ranking="random")  # type: ignore[arg-type]
    with pytest.raises(PlanError, match='"layer9": the model has no such group'):
        autoprune.make_plan(resnet, {"layer9": 1.0}, rule=GREEDY)


def test_the_stem_alone_ranks_a_stream_without_projection() -> None:
    prunable = autoprune.trace(Residual(), torch.zeros(1, 3, 8, 8))
    ranked = importance(prunable, "l1", rule=Rule(residual="shortcut"))
    stem = prunable.model.get_parameter("stem.weight").detach().double()
    np.testing.assert_allclose(ranked["stem"], stem.abs().sum(dim=(1, 2, 3)))
