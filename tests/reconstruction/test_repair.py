"""Both ways of repair: closed form and layer by layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.graph import Plan, Prunable
from autoprune.reconstruction import Repaired, moments, repair_closed, repair_sequential
from autoprune.reconstruction import _sequential as sequential_module
from autoprune.reconstruction._calls import Branch, branches
from tests.reconstruction.nets import Longer, Residual, images, traced, trained_like

ALL = 10**6
Way = Callable[[Prunable, Plan, nn.Module], Repaired]


def closed(prunable: Prunable, plan: Plan, small: nn.Module) -> Repaired:
    measured = moments(prunable, [images()], positions=ALL)
    return repair_closed(prunable, plan, small, measured, ridge=1e-9)


def sequential(prunable: Prunable, plan: Plan, small: nn.Module) -> Repaired:
    return repair_sequential(prunable, plan, small, [images()], positions=ALL, ridge=1e-9)


WAYS = pytest.mark.parametrize("way", [closed, sequential])


def run(model: nn.Module, batch: Tensor) -> Tensor:
    with torch.no_grad():
        outputs: Tensor = model.eval()(batch)
    return outputs


def distance(prunable: Prunable, small: nn.Module) -> float:
    dense = run(prunable.model, images())
    return float((run(small, images()) - dense).norm() / (dense - dense.mean(dim=0)).norm())


@WAYS
def test_a_plan_that_keeps_all_changes_nothing(way: Way) -> None:
    prunable = traced(trained_like(Residual()))
    plan = autoprune.make_plan(prunable, 1.0)
    small = autoprune.rebuild(prunable, plan)
    repaired = way(prunable, plan, small)
    assert repaired.model is not small
    assert all(map(torch.equal, repaired.model.state_dict().values(), small.state_dict().values()))


@WAYS
@pytest.mark.parametrize("norm", [True, False], ids=["BatchNorm", "bias"])
def test_it_brings_a_cut_model_nearer_and_leaves_the_given_one(way: Way, norm: bool) -> None:
    prunable = traced(trained_like(Residual(norm=norm)))
    plan = autoprune.make_plan(prunable, 0.67)
    small = autoprune.rebuild(prunable, plan)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    repaired = way(prunable, plan, small)
    assert distance(prunable, repaired.model) < 0.5 * distance(prunable, small)
    assert all(torch.equal(tensor, before[name]) for name, tensor in small.state_dict().items())
    assert repaired.left == {}
    assert {"first.0.weight", "second.0.weight", "head.weight"} <= repaired.errors.keys()


@WAYS
@pytest.mark.parametrize("norm", [True, False], ids=["BatchNorm", "bias"])
def test_a_channel_that_others_make_up_for_goes_at_no_cost(way: Way, norm: bool) -> None:
    model = trained_like(Residual(norm=norm))
    with torch.no_grad():  # channel 1 of the first convolution becomes twice channel 4
        model.get_parameter("first.0.weight")[1] = 2 * model.get_parameter("first.0.weight")[4]
        if norm:
            for name, factor in (("running_mean", 2), ("running_var", 4)):
                model.get_buffer(f"first.1.{name}")[1] = factor * model.get_buffer(f"first.1.{name}")[4]
            for name in ("weight", "bias"):
                model.get_parameter(f"first.1.{name}")[1] = model.get_parameter(f"first.1.{name}")[4]
        else:
            model.get_parameter("first.0.bias")[1] = 2 * model.get_parameter("first.0.bias")[4]
    prunable = traced(model)
    plan = Plan({"first.0": torch.tensor([0, 2, 3, 4, 5]).numpy()})
    small = autoprune.rebuild(prunable, plan)
    assert distance(prunable, small) > 0.05
    assert distance(prunable, way(prunable, plan, small).model) < 1e-4


def test_both_ways_agree_on_the_one_layer_that_is_narrowed() -> None:
    prunable = traced(trained_like(Residual(norm=False)))
    plan = autoprune.make_plan(prunable, {"first.0": 4})
    small = autoprune.rebuild(prunable, plan)
    both = [way(prunable, plan, small).model for way in (closed, sequential)]
    # The sum behind this layer has the dense term, so that there is nothing to make up for.
    for name in ("second.0.weight", "second.0.bias"):
        first, second = (each.get_parameter(name) for each in both)
        torch.testing.assert_close(first, second, rtol=1e-5, atol=1e-6)


def features(model: nn.Module) -> Tensor:
    """Return what enters the mean before a net's head, [n, channels, h, w]."""
    with torch.no_grad():
        found: Tensor = model.eval().features(images())  # type: ignore[operator]  # a method of the net
    return found


def without_others(found: dict[str, Branch]) -> dict[str, Branch]:
    """Let a fit at the end of a branch aim at the BatchNorm behind it rather than at the sum."""
    return {
        name: each if each.other is None else Branch(each.call, each.call + 1, None, each.normalised)
        for name, each in found.items()
    }


def test_the_later_branch_makes_up_for_the_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    prunable = traced(trained_like(Longer()))
    plan = autoprune.make_plan(prunable, {"first.0": 2})
    small = autoprune.rebuild(prunable, plan)
    dense = features(prunable.model)
    repaired = sequential(prunable, plan, small).model
    monkeypatch.setattr(sequential_module, "branches", lambda made: without_others(branches(made)))
    alone = sequential(prunable, plan, small).model
    assert float((features(repaired) - dense).norm()) < 0.9 * float((features(alone) - dense).norm())


@WAYS
def test_recalibration_does_not_undo_it(way: Way) -> None:
    """BatchNorm's statistics are those of the refitted layers, so that measuring them again moves little."""
    prunable = traced(trained_like(Residual()))
    plan = autoprune.make_plan(prunable, {"first.0": 4})
    repaired = way(prunable, plan, autoprune.rebuild(prunable, plan)).model
    before = run(repaired, images())
    for module in repaired.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.reset_running_stats()
            module.momentum = None
    with torch.no_grad():
        repaired.train()(images())
    moved = (run(repaired, images()) - before).norm() / before.norm()
    assert float(moved) < 0.05


class Kinds(nn.Module):
    """Grouped, depthwise, transposed and linear layers with biases, one behind the other."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.mix = nn.Conv2d(8, 12, 1)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=2)
        self.up = nn.ConvTranspose2d(8, 6, 2, stride=2)
        self.norm = nn.LayerNorm(6)
        self.widen = nn.Linear(6, 12)
        self.head = nn.Linear(12, 4)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits [n, 4]."""
        features = torch.relu(self.depthwise(torch.relu(self.stem(batch))))
        features = torch.relu(self.grouped(torch.relu(self.mix(features))))
        tokens = self.norm(torch.relu(self.up(features)).flatten(2).transpose(1, 2))
        logits: Tensor = self.head(torch.relu(self.widen(tokens)).mean(dim=1))
        return logits


@WAYS
def test_layers_of_all_kinds(way: Way) -> None:
    prunable = traced(trained_like(Kinds()))
    names = {group.name for group in prunable.groups if group.frozen is None}
    plan = autoprune.make_plan(prunable, {name: 0.75 for name in names if name != "up"})
    small = autoprune.rebuild(prunable, plan)
    repaired = way(prunable, plan, small)
    assert repaired.left == {}
    assert {"mix.weight", "grouped.weight", "up.weight", "head.weight"} <= repaired.errors.keys()
    assert distance(prunable, repaired.model) < 0.7 * distance(prunable, small)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_cuda_device_gives_what_the_cpu_gives() -> None:
    """The same images, positions and order of sums; the data stays where the loader has it."""
    prunable, other = (traced(trained_like(Kinds())) for _ in range(2))
    other.model.cuda()
    names = [group.name for group in prunable.groups if group.frozen is None and group.name != "up"]
    plan = autoprune.make_plan(prunable, dict.fromkeys(names, 0.75))
    for way in (closed, sequential):
        expected = way(prunable, plan, autoprune.rebuild(prunable, plan))
        found = way(other, plan, autoprune.rebuild(other, plan))
        assert next(found.model.parameters()).is_cuda
        assert found.errors == pytest.approx(expected.errors, rel=1e-4, abs=1e-6)
        for name, tensor in expected.model.state_dict().items():
            torch.testing.assert_close(found.model.state_dict()[name].cpu(), tensor, rtol=1e-4, atol=1e-5)
    measured = moments(other, [images()])
    assert all(layer.second.is_cuda for layer in measured.layers.values())


@pytest.mark.parametrize("norm", [True, False], ids=["BatchNorm", "bias"])
def test_masks_hold_in_each_layer_before_the_layers_behind_it_are_fitted(norm: bool) -> None:
    prunable = traced(trained_like(Residual(norm=norm)))
    plan = autoprune.make_plan(prunable, 0.67)
    small = autoprune.rebuild(prunable, plan)
    masks = {"first.0.weight": torch.arange(16 * 9).reshape(4, 4, 3, 3) % 3 > 0}
    assert small.get_parameter("first.0.weight").shape == masks["first.0.weight"].shape
    held = repair_sequential(prunable, plan, small, [images()], positions=ALL, masks=masks).model
    late = repair_sequential(prunable, plan, small, [images()], positions=ALL).model
    with torch.no_grad():
        late.get_parameter("first.0.weight").masked_fill_(~masks["first.0.weight"], 0)
    assert torch.equal(held.get_parameter("first.0.weight") != 0, masks["first.0.weight"])
    assert distance(prunable, held) < distance(prunable, late)
    before = [value.clone() for name, value in held.state_dict().items() if "running" in name]
    momentum = [module for module in held.modules() if isinstance(module, nn.BatchNorm2d)]
    for module in momentum:
        module.momentum = 1.0
    held.train()(images())
    after = [value for name, value in held.state_dict().items() if "running" in name]
    for old, new in zip(before, after, strict=True):
        torch.testing.assert_close(new, old, rtol=2e-3, atol=1e-3)  # of an unbiased variance
