"""Cuts looked at before any finetune: nothing cut changes nothing, dead channels cost nothing."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn

from autoprune.criteria import importance, plan_from_importance
from autoprune.data import VisionData, first_batches, load
from autoprune.execution import Setting
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import moments, repair
from autoprune.score import Cutter, cut_scores, divergences, sensitive_groups
from autoprune.score._sensitivity import kl_divergence
from autoprune.space import Budget, SpaceSpec, Tie, build_space
from autoprune.tracing import trace
from autoprune.training import Task, evaluate, recalibrate, weights_hash
from autoprune.zoo import make_model

SETTING = Setting("cpu")
DEAD = "layer1.0.conv1"


@pytest.fixture(scope="module")
def data() -> VisionData:
    return load("digits", batch_size=64, val_fraction=0.2)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A net with twelve of sixteen channels of one group dead: their filters and shifts are zero."""
    torch.manual_seed(0)
    made = make_model("digits_resnet", 10, 1).eval()
    with torch.no_grad():
        made.get_submodule(DEAD).weight[4:] = 0  # type: ignore[operator]  # a convolution
        made.get_submodule(DEAD.replace("conv", "bn")).bias[4:] = 0  # type: ignore[operator]  # its norm
    return made


@pytest.fixture(scope="module")
def cutter(model: nn.Module, data: VisionData) -> Cutter:
    prunable = trace(model, torch.zeros(1, *data.input_shape))
    return Cutter(prunable, importance(prunable, "l1"), SETTING, first_batches(data.train, 2, seed=0))


def test_nothing_cut_diverges_by_nothing_and_dead_channels_cost_nothing(
    cutter: Cutter, data: VisionData, model: nn.Module
) -> None:
    before = weights_hash(model)
    none, dead, alive = divergences(cutter, [{}, {DEAD: 4}, {DEAD: 2}], cutter.calibration)
    assert none == 0.0
    assert dead < 1e-9 < alive
    whole, cut = cut_scores(cutter, [{}, {DEAD: 4}], data.val, Task())
    assert cut == whole
    assert weights_hash(model) == before


def test_half_of_the_channels_move_the_outputs_more_than_one_does(cutter: Cutter) -> None:
    one, half = divergences(cutter, [{"layer2.0.conv2": 31}, {"layer2.0.conv2": 16}], cutter.calibration)
    assert 0 < one < half


def test_scores_are_those_of_the_recalibrated_model(cutter: Cutter, data: VisionData) -> None:
    seen: list[int] = []
    (score,) = cut_scores(cutter, [{DEAD: 2, "conv1": 8}], data.val, Task(), done=seen.append)
    model = cutter.model({DEAD: 2, "conv1": 8})
    recalibrate(model, data.train, 2, SETTING, seed=0)
    assert score == evaluate(model, data.val, Task(), SETTING)
    assert seen == [1]


def test_with_moments_cut_models_are_repaired_before_they_are_recalibrated(
    cutter: Cutter, data: VisionData
) -> None:
    measured = moments(cutter.prunable, data.unchanged_train, images=200)
    repairing = dataclasses.replace(cutter, moments=measured)
    plan = plan_from_importance(cutter.prunable, {"conv1": 8}, cutter.importance)
    model = repair(cutter.prunable, plan, rebuild(cutter.prunable, plan), measured)
    recalibrate(model, cutter.calibration, 2, SETTING)
    assert weights_hash(repairing.model({"conv1": 8})) == weights_hash(model)
    assert weights_hash(cutter.model({"conv1": 8})) != weights_hash(model)


def test_outputs_that_are_not_finite_have_no_score_and_diverge_without_end(data: VisionData) -> None:
    torch.manual_seed(0)
    made = make_model("digits_resnet", 10, 1).eval()
    prunable = trace(made, torch.zeros(1, *data.input_shape))
    ranked = importance(prunable, "l1")
    with torch.no_grad():
        made.get_submodule("fc").weight[:] = math.inf  # type: ignore[operator]  # a linear
    cutter = Cutter(prunable, ranked, SETTING, first_batches(data.train, 1, seed=0))
    assert all(math.isnan(score) for score in cut_scores(cutter, [{"conv1": 8}], data.val, Task()))
    assert divergences(cutter, [{"conv1": 8}], cutter.calibration) == [math.inf]


def softmax(logits: list[float]) -> list[float]:
    powers = [math.exp(value) for value in logits]
    return [power / sum(powers) for power in powers]


def test_kl_is_the_sum_by_definition() -> None:
    first, second = [0.3, -1.0, 2.0], [0.1, 0.5, -0.2]
    p, q = softmax(first), softmax(second)
    expected = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert kl_divergence(Tensor([first]), Tensor([second])) == pytest.approx(expected, rel=1e-6)
    both = kl_divergence(Tensor([first, first]), Tensor([second, first]))
    assert both == pytest.approx(expected / 2, rel=1e-6)
    maps = [Tensor([row]).reshape(1, 3, 1, 1).expand(1, 3, 4, 5) for row in (first, second)]
    assert kl_divergence(*maps) == pytest.approx(expected, rel=1e-6)
    shifted = [5 + value for value in first]
    assert kl_divergence(Tensor([first]), Tensor([shifted])) == pytest.approx(0, abs=1e-7)


def test_one_output_is_one_class_against_none() -> None:
    p, q = 1 / (1 + math.exp(-0.7)), 1 / (1 + math.exp(0.4))
    expected = p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
    assert kl_divergence(Tensor([0.7]), Tensor([-0.4])) == pytest.approx(expected, rel=1e-6)
    assert kl_divergence(Tensor([[0.7]]), Tensor([[-0.4]])) == pytest.approx(expected, rel=1e-6)
    maps = [Tensor([value]).reshape(1, 1, 1, 1).expand(1, 1, 4, 5) for value in (0.7, -0.4)]
    assert kl_divergence(*maps) == pytest.approx(expected, rel=1e-6)


def test_groups_whose_cut_costs_more_than_the_tolerance_are_sensitive(
    cutter: Cutter, data: VisionData
) -> None:
    groups, cost = cutter.prunable.groups, cutter.prunable.cost
    tie = Tie("late", ("layer2.0.conv1", "layer2.1.conv1"))
    spec = SpaceSpec(skip=("layer1.1.*", "layer2.0.conv2"), ties=(tie,))
    space = build_space(groups, cost, Budget(macs=int(cost().macs)), spec)
    variables = [["conv1"], [DEAD], list(tie.groups)]
    widths = {group.name: group.width // 4 for group in groups}
    cuts = [{}, *({name: widths[name] for name in names} for names in variables)]
    baseline, *scores = cut_scores(cutter, cuts, data.val, Task())
    falls = [baseline - score for score in scores]
    found = sensitive_groups(cutter, space, data.val, Task(), keep=0.25, tolerance=sorted(falls)[1])
    assert list(found) == variables[falls.index(max(falls))]
    assert DEAD not in sensitive_groups(cutter, space, data.val, Task(), keep=0.25, tolerance=0.0)
