"""Whole channels compile: the masked and the rebuilt model give the same outputs, accuracy and MACs."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

import autoprune
from autoprune.data import seeded
from autoprune.errors import MaskError
from autoprune.execution import Setting
from autoprune.graph import Plan
from autoprune.masks import (
    MaskHook,
    Masks,
    channel_masks,
    compile_masks,
    make_masks,
    narrow_masks,
    remaining,
)
from autoprune.training import Schedule, Task, evaluate, fit, weights_hash
from tests.masks.nets import DATA, net, traced
from tests.models import CASES
from tests.residual import Basic, Net

COMPILED = (
    *("residual", "concat", "flatten", "depthwise", "squeeze_excite", "attention", "hand_attention", "twice"),
    *("scaled", "two_inputs", "chunked", "train_only_head", "transposed", "shuffled", "gated", "split"),
    *("film", "dilated", "stages", "bilinear"),
)


@pytest.mark.parametrize("name", COMPILED)
def test_the_masks_of_a_plan_compile_to_the_plan_in_every_topology(name: str) -> None:
    case = CASES[name]
    with seeded(0):
        model = case.make()
        for parameter in model.parameters():
            nn.init.normal_(parameter)
    prunable = autoprune.trace(model, case.inputs)
    plan = autoprune.make_plan(prunable, 0.5)
    compiled = compile_masks(prunable, channel_masks(prunable, plan))
    assert compiled.plan == Plan(
        {name: index for name, index in plan.items() if prunable.group(name).crosses is None}
    )
    assert compiled.difference <= 1e-12


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_masked_filters_are_cut_with_equal_outputs(scope: str) -> None:
    prunable = traced()
    masks = make_masks(prunable, 0.5, granularity="filter", scope=scope, skip=["head"])
    compiled = compile_masks(prunable, masks)
    assert compiled.difference <= 1e-12
    assert compiled.plan.widths["inner"] == int(masks["inner.weight"].flatten(1).any(1).sum()) < 8
    masked = copy.deepcopy(prunable.model).eval()
    masks.apply(masked)
    inputs = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(compiled.model.eval()(inputs), masked(inputs), rtol=1e-4, atol=1e-5)


def test_a_model_that_trained_under_a_mask_keeps_its_accuracy_when_it_is_cut() -> None:
    prunable = traced()
    masks = make_masks(prunable, 0.5, granularity="filter", skip=["head"])
    fit(prunable.model, DATA, Schedule(epochs=10), Setting(), Task(), seed=0, hooks=(MaskHook(masks),))
    compiled = compile_masks(prunable, masks)
    scores = [evaluate(each, DATA.val, Task(), Setting()) for each in (prunable.model, compiled.model)]
    assert scores[0] == scores[1] > 0.3


def test_channels_that_one_layer_alone_masks_stay() -> None:
    prunable = traced()
    mask = torch.ones(8, 1, 3, 3, dtype=torch.bool)
    mask[:4] = False
    masks = make_masks(prunable, 0.0).also({"stem.weight": mask})
    assert compile_masks(prunable, masks).plan.widths == {}


def test_single_weights_compile_to_the_same_model() -> None:
    prunable = traced()
    compiled = compile_masks(prunable, make_masks(prunable, 0.5))
    assert compiled.plan.widths == {}
    assert float((compiled.model.get_parameter("inner.weight") == 0).float().mean()) == 0.5


def test_the_macs_of_whole_channels_are_those_of_the_plan() -> None:
    prunable = traced()
    masks = make_masks(prunable, 0.5, granularity="filter", skip=["head", "stem", "outer"])
    left = remaining(prunable, masks)
    cost = prunable.cost(compile_masks(prunable, masks).plan.widths)
    assert (left.macs, left.weights) == (cost.macs, cost.params)
    assert "zeros alone do not run faster" in str(left)


def test_remaining_weights_are_counted_by_their_positions() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 3, 2, stride=2), nn.Flatten())
    prunable = autoprune.trace(model, torch.zeros(1, 1, 5, 5))
    first, second = torch.ones(2, 1, 3, 3, dtype=torch.bool), torch.ones(2, 3, 2, 2, dtype=torch.bool)
    first[0, 0, 0, :2] = False
    second[0, 0, 0, 0] = False
    left = remaining(prunable, Masks({"0.weight": first, "1.weight": second}))
    assert left.dense_macs - left.macs == 2 * 9 + 1 * 9
    assert left.dense_weights - left.weights == 3
    assert left.sparsity == pytest.approx(3 / left.dense_weights)


def test_groups_that_a_normalisation_crosses_stay_whole() -> None:
    with seeded(0):
        layers = [nn.Linear(6, 8), nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)]
        prunable = autoprune.trace(nn.Sequential(*layers), torch.zeros(1, 6))
    masks = make_masks(prunable, 0.5, granularity="filter", skip=["4"])
    compiled = compile_masks(prunable, masks)
    assert list(compiled.plan) == ["2"]
    assert compiled.difference <= 1e-12


def test_a_group_that_is_masked_whole_keeps_one_channel() -> None:
    prunable = traced()
    group = prunable.group("inner")
    masks = Masks(
        {
            member.parameter: torch.zeros(
                prunable.model.get_parameter(member.parameter).shape, dtype=torch.bool
            )
            for member in group.members
            if member.parameter in dict(prunable.model.named_parameters())
        }
    )
    compiled = compile_masks(prunable, masks)
    assert compiled.plan.widths == {"inner": 1}
    assert compiled.difference <= 1e-12


def test_the_masks_of_a_smaller_model_are_those_of_its_weights() -> None:
    prunable = traced()
    masks = Masks({name: torch.rand(p.shape) > 0.3 for name, p in prunable.model.named_parameters()})
    plan = autoprune.make_plan(prunable, {"inner": 5, "stem": 3})
    narrowed = narrow_masks(prunable, masks, plan)
    small = narrowed.applied(autoprune.rebuild(prunable, plan))
    masked = autoprune.rebuild(replace(prunable, model=masks.applied(prunable.model)), plan)
    assert weights_hash(small) == weights_hash(masked)
    assert narrowed["inner.weight"].shape == (5, 3, 3, 3)


def test_masks_of_another_model_are_one_line() -> None:
    masks = make_masks(net(), 0.5)
    other = autoprune.trace(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)), torch.zeros(1, 1, 8, 8))
    with pytest.raises(
        MaskError, match=r"stem.weight: the masks are of another model: Sequential has no such"
    ):
        compile_masks(other, masks)
    with pytest.raises(MaskError, match="the masks are of another model"):
        remaining(other, masks)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device with sparse tensor cores")
def test_two_of_four_runs_on_sparse_tensor_cores() -> None:
    layer = nn.Linear(128, 128, device="cuda", dtype=torch.float16)
    make_masks(layer, 0.5, granularity="2:4").apply(layer)
    inputs = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    dense = layer(inputs)
    sparse = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
    layer.weight = nn.Parameter(sparse, requires_grad=False)
    torch.testing.assert_close(layer(inputs), dense, rtol=1e-2, atol=1e-2)


def test_the_masks_of_a_dropped_block_leave_its_shortcut() -> None:
    with seeded(0):
        prunable = autoprune.trace(Net(Basic(), Basic()).eval(), torch.zeros(1, 3, 8, 8))
    plan = autoprune.make_plan(prunable, {"stem": 5, "blocks.1.conv1": 3, prunable.blocks[0].name: 0})
    masked = copy.deepcopy(prunable.model)
    channel_masks(prunable, plan).apply(masked)
    inputs = torch.randn(4, 3, 8, 8)
    small = autoprune.rebuild(prunable, plan)
    torch.testing.assert_close(masked(inputs), small(inputs), rtol=1e-4, atol=1e-6)
