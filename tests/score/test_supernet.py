"""The supernet: exact gradients for the shared weights, the sandwich of each step, trainings that resume."""

from __future__ import annotations

import copy
import dataclasses
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from autoprune.criteria import importance, plan_from_importance
from autoprune.data import VisionData, load, seeded
from autoprune.errors import CheckpointError
from autoprune.execution import Setting
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import keep_positions, narrow_to, rebuild
from autoprune.score import SandwichSampler, calibrate, with_model
from autoprune.score._supernet import CHUNK, add_gradients
from autoprune.space import Budget, SearchSpace, SpaceSpec, build_space
from autoprune.tracing import trace
from autoprune.training import EpochRecord, Schedule, Task, Trainer, evaluate, fit, weights_hash
from autoprune.training._distill import distillation_loss
from autoprune.zoo.resnet import ResNet
from tests.cost.test_formula import random_plan
from tests.models import CASES
from tests.rebuilding.test_rebuilder import leaves
from tests.residual import Basic, Net

SETTING = Setting()


def loss_of(outputs: object) -> Tensor:
    """Weigh the outputs, because BatchNorm would make their squares constant."""
    total = torch.zeros((), dtype=torch.float64)
    for leaf in leaves(outputs):
        total = total + (leaf * torch.linspace(-1, 2, leaf.numel(), dtype=leaf.dtype).view_as(leaf)).sum()
    return total


def slices(model: nn.Module, prunable: Prunable, plan: Plan) -> dict[str, Tensor]:
    """Return a plan's parameters as differentiable slices of the model's own."""
    positions = keep_positions(prunable, plan)
    cut = {}
    for name, parameter in model.named_parameters():
        part: Tensor = parameter
        for axis, kept in positions.get(name, {}).items():
            part = part.index_select(axis, torch.from_numpy(kept))
        cut[name] = part
    return cut


def own_gradients(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()
        for name, parameter in model.named_parameters()
    }


@functools.cache
def in_double(name: str) -> tuple[nn.Module, Prunable, tuple[object, ...], dict[str, object]]:
    """Return a case's model, what is known of it, and random inputs for a batch of 3, all in float64."""
    case = CASES[name]
    with seeded(2):
        model = case.make().double().train()
        inputs = pytree.tree_map(lambda v: torch.randn(3, *v.shape[1:]).double(), case.inputs)
    prunable = trace(model, pytree.tree_map(lambda v: v.double(), case.inputs))
    return model, prunable, *(((), inputs) if isinstance(inputs, dict) else (inputs, {}))


TYPICAL = ("residual", "concat", "depthwise", "chunked", "hand_attention", "shuffled")
"""Sums, concatenations, groups, halves, heads, layouts: the other cases are for the slow run."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in TYPICAL else pytest.mark.slow) for name in CASES]
)
def test_gradients_of_a_subnet_are_those_of_differentiable_slices(name: str) -> None:
    model, prunable, args, kwargs = in_double(name)
    model.zero_grad()
    plan = random_plan(prunable, 0)
    small = narrow_to(model, prunable, plan)
    structure = copy.deepcopy(small)  # as it is now: a forward pass in train mode may move buffers
    with seeded(0):
        loss_of(small(*args, **kwargs)).backward()  # type: ignore[no-untyped-call]  # torch gives no hints
    assert all(parameter.grad is None for parameter in model.parameters())
    add_gradients(model, small, keep_positions(prunable, plan))
    got = own_gradients(model)
    model.zero_grad()
    with seeded(0):
        sliced = functional_call(structure, slices(model, prunable, plan), args, kwargs)
        loss_of(sliced).backward()  # type: ignore[no-untyped-call]  # torch gives no hints
    expected = own_gradients(model)
    assert any(bool(gradient.any()) for gradient in expected.values())
    for leaf, gradient in expected.items():
        torch.testing.assert_close(got[leaf], gradient, rtol=1e-10, atol=1e-12, msg=leaf)
        assert torch.equal(got[leaf] == 0, gradient == 0), leaf  # nothing but the slices


@pytest.mark.parametrize("name", TYPICAL)
def test_gradients_predict_how_the_loss_of_a_subnet_moves(name: str) -> None:
    """Central differences of the rebuilt model's loss, in which no slice of ours is differentiated."""
    model, prunable, args, kwargs = in_double(name)
    model.zero_grad()
    plan = random_plan(prunable, 1)
    small = narrow_to(model, prunable, plan)
    loss_of(small(*args, **kwargs)).backward()  # type: ignore[no-untyped-call]  # torch gives no hints
    add_gradients(model, small, keep_positions(prunable, plan))
    with seeded(5):
        direction = {leaf: torch.randn_like(parameter) for leaf, parameter in model.named_parameters()}

    def moved(step: float) -> float:
        other = copy.deepcopy(model)
        with torch.no_grad():
            for leaf, parameter in other.named_parameters():
                parameter.add_(direction[leaf], alpha=step)
            return float(loss_of(narrow_to(other, prunable, plan)(*args, **kwargs)))

    slope = sum(float((gradient * direction[leaf]).sum()) for leaf, gradient in own_gradients(model).items())
    assert slope == pytest.approx((moved(1e-6) - moved(-1e-6)) / 2e-6, rel=1e-5)


def test_a_subnet_without_a_block_gives_no_gradient_to_it() -> None:
    torch.manual_seed(0)
    prunable = trace(Net(Basic(), Basic()), torch.zeros(1, 3, 8, 8))
    plan = Plan({prunable.blocks[0].name: np.empty(0, np.int64), "blocks.1.conv1": np.array([0, 2])})
    small = narrow_to(prunable.model, prunable, plan)
    torch.autograd.backward(loss_of(small(torch.randn(4, 3, 8, 8))))
    add_gradients(prunable.model, small, keep_positions(prunable, plan))
    parameters = dict(prunable.model.named_parameters())
    without = {name for name, each in parameters.items() if each.grad is None}
    assert without == prunable.blocks[0].tensors & parameters.keys()
    torch.testing.assert_close(parameters["stem.weight"].grad, small.get_parameter("stem.weight").grad)


def test_the_whole_model_as_a_subnet_gives_its_own_gradients_exactly() -> None:
    model = ResNet(1, (16, 32), 10, 1).train()
    prunable = trace(model, torch.zeros(1, 1, 8, 8))
    inputs = torch.randn(4, 1, 8, 8)
    whole = Plan({group.name: np.arange(group.width) for group in prunable.searchable})
    small = narrow_to(model, prunable, whole)
    small(inputs).square().sum().backward()
    add_gradients(model, small, keep_positions(prunable, whole))
    got = own_gradients(model)
    model.zero_grad()
    model(inputs).square().sum().backward()
    assert all(torch.equal(got[name], gradient) for name, gradient in own_gradients(model).items())


@dataclasses.dataclass(frozen=True)
class Parts:
    """A little net on digits with what its supernet is made of."""

    dense: nn.Module
    data: VisionData
    prunable: Prunable
    ranking: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]]
    space: SearchSpace

    def sampler(self, *, random: int = 2, budget_share: float = 0.5, seed: int = 0) -> SandwichSampler:
        return SandwichSampler(
            self.prunable, self.ranking, self.space, random=random, budget_share=budget_share, seed=seed
        )


def make_parts(*, batch_size: int, epochs: int, blocks: int) -> Parts:
    data = load("digits", batch_size=batch_size, val_fraction=0.2)
    with seeded(0):
        dense = ResNet(blocks, (16, 32), 10, 1)
    if epochs:
        fit(dense, data, Schedule(epochs=epochs), SETTING, Task(), seed=0)
    prunable = trace(dense.eval(), torch.zeros(1, *data.input_shape))
    half = Budget(macs=int(prunable.cost().macs) // 2)
    space = build_space(prunable.groups, prunable.cost, half, SpaceSpec())
    return Parts(dense, data, prunable, importance(prunable, "l1"), space)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return make_parts(batch_size=512, epochs=0, blocks=1)


def test_a_step_has_the_smallest_and_random_subnets(parts: Parts) -> None:
    rows = [parts.sampler(random=3).widths_at(step) for step in range(40)]
    assert all(len(row) == 4 for row in rows)
    lowest = parts.space.snap(np.array([variable.low for variable in parts.space.variables]))
    reach = parts.space.reach().smallest.macs
    for smallest, *_ in rows:
        assert list(smallest.values()) == lowest.tolist()
        assert parts.prunable.cost(smallest).macs == reach
    assert len({tuple(widths.values()) for _, *drawn in rows for widths in drawn}) > 100


def macs_of(parts: Parts, *, budget_share: float) -> list[float]:
    sampler, whole = parts.sampler(budget_share=budget_share), int(parts.prunable.cost().macs)
    drawn = [widths for step in range(100) for widths in sampler.widths_at(step)[1:]]
    return [int(parts.prunable.cost(widths).macs) / whole for widths in drawn]


def test_subnets_fill_the_budget_or_have_any_size(parts: Parts) -> None:
    inside = macs_of(parts, budget_share=1.0)
    assert all(0.49 <= share <= 0.5 for share in inside)
    anywhere = macs_of(parts, budget_share=0.0)
    assert min(anywhere) < 0.15
    assert max(anywhere) > 0.75
    filled = sum(0.49 <= share <= 0.5 for share in macs_of(parts, budget_share=0.5))
    assert 60 <= filled <= 140  # of 200 draws at a half each: six standard deviations are 42


def test_the_draws_follow_from_seed_and_step_alone(parts: Parts) -> None:
    steps = [0, 1, CHUNK - 1, CHUNK, 5 * CHUNK + 3]
    one = {step: parts.sampler().widths_at(step) for step in steps}
    again = parts.sampler()
    assert {step: again.widths_at(step) for step in reversed(steps)} == dict(one)
    assert parts.sampler(seed=1).widths_at(0) != one[0]
    assert parts.sampler(random=0).widths_at(7) == one[0][:1]


def test_a_narrower_subnet_lies_inside_a_wider(parts: Parts) -> None:
    for name in parts.space.groups:
        width = parts.prunable.group(name).width
        if parts.prunable.group(name).frozen is not None:
            continue
        plans = [
            plan_from_importance(parts.prunable, {name: each}, parts.ranking) for each in range(1, width)
        ]
        for narrow, wide in itertools.pairwise(plans):
            assert set(narrow[name]) < set(wide[name])


def test_samplers_have_different_identities(parts: Parts) -> None:
    assert parts.sampler().identity == parts.sampler().identity
    other = dataclasses.replace(parts, ranking={**parts.ranking, "conv1": np.arange(16.0)})
    assert (
        len(
            {
                parts.sampler().identity,
                parts.sampler(random=3).identity,
                parts.sampler(budget_share=0.4).identity,
                parts.sampler(seed=1).identity,
                other.sampler().identity,
            }
        )
        == 5
    )


def one_batch(data: VisionData) -> Iterator[tuple[Tensor, Tensor]]:
    inputs, targets = next(iter(data.train))
    yield inputs.double(), targets


def test_a_step_descends_the_sum_of_all_losses(parts: Parts) -> None:
    """Labels for the whole model, its own outputs for the sub-nets, all differentiated in one expression."""
    sampler = parts.sampler()
    trained, by_hand = (copy.deepcopy(parts.dense).double() for _ in range(2))
    schedule = Schedule(
        steps=1, learning_rate=0.1, momentum=0, weight_decay=0, schedule="constant", warmup=0, temperature=2
    )
    trainer = Trainer(trained, schedule, SETTING, Task(), total_steps=1, subnets=sampler)
    trainer.run(one_batch(parts.data), 1)

    inputs, targets = next(one_batch(parts.data))
    by_hand.train()
    structures = []
    for widths in sampler.widths_at(0):
        plan = plan_from_importance(parts.prunable, widths, parts.ranking)
        structures.append((narrow_to(by_hand, parts.prunable, plan), plan))
    logits = by_hand(inputs)
    loss = nn.functional.cross_entropy(logits, targets)
    for structure, plan in structures:
        followers = functional_call(structure, slices(by_hand, parts.prunable, plan), (inputs,))
        loss = loss + distillation_loss(followers, logits.detach(), 2.0)
    loss.backward()  # type: ignore[no-untyped-call]  # torch gives no hints
    with torch.no_grad():
        for parameter in by_hand.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=0.1)
    for (name, mine), expected in zip(trained.named_parameters(), by_hand.parameters(), strict=True):
        torch.testing.assert_close(mine, expected, rtol=1e-5, atol=1e-7, msg=name)
    # BatchNorm's running statistics are those of the whole model alone.
    for (name, running), alone in zip(trained.named_buffers(), by_hand.buffers(), strict=True):
        torch.testing.assert_close(running, alone, rtol=1e-9, atol=1e-12, msg=name)


class InterruptedTrainingError(Exception):
    """Ends a search as Ctrl-C does."""


def train_supernet(
    parts: Parts,
    checkpoint: Path | None,
    sampler: SandwichSampler,
    setting: Setting = SETTING,
    *,
    stop_after: int = 0,
) -> nn.Module:
    def on_epoch(record: EpochRecord) -> None:
        if record.epoch == stop_after:
            raise InterruptedTrainingError

    shared = copy.deepcopy(parts.dense)
    schedule = Schedule(epochs=2, learning_rate=0.05, temperature=1.0)
    fit(
        shared,
        parts.data,
        schedule,
        setting,
        Task(),
        seed=0,
        subnets=sampler,
        on_epoch=on_epoch,
        checkpoint=checkpoint,
    )
    return shared


@pytest.mark.parametrize(
    "setting",
    [SETTING, pytest.param(Setting(dtype="bfloat16", channels_last=True), marks=pytest.mark.slow)],
    ids=lambda setting: setting.label,
)
def test_a_killed_training_goes_on_bit_for_bit(parts: Parts, tmp_path: Path, setting: Setting) -> None:
    state = tmp_path / "supernet.training"
    sampler = parts.sampler(random=1)
    with pytest.raises(InterruptedTrainingError):
        train_supernet(parts, state, sampler, setting, stop_after=1)
    with pytest.raises(CheckpointError, match="it belongs to another training: subnets was"):
        train_supernet(parts, state, parts.sampler(random=1, seed=1), setting)
    before = weights_hash(parts.dense)
    resumed = train_supernet(parts, state, parts.sampler(random=1), setting)
    assert weights_hash(resumed) == weights_hash(train_supernet(parts, None, sampler, setting))
    assert weights_hash(parts.dense) == before


def test_other_weights_stand_in_for_the_traced_ones(parts: Parts) -> None:
    other = copy.deepcopy(parts.dense)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)
    swapped = with_model(parts.prunable, other)
    plan = plan_from_importance(parts.prunable, {"conv1": 5, "layer2.0.conv1": 9}, parts.ranking)
    expected = dict(rebuild(parts.prunable, plan).named_parameters())
    for name, parameter in rebuild(swapped, plan).named_parameters():
        assert torch.equal(parameter, expected[name] + 1)
    assert swapped.fingerprint == parts.prunable.fingerprint


@pytest.mark.slow
def test_shared_weights_make_better_subnets_than_the_dense_models() -> None:
    """At half the MACs, without a finetune, BatchNorm recalibrated: every one of eight random plans."""
    parts = make_parts(batch_size=64, epochs=8, blocks=2)
    shared = copy.deepcopy(parts.dense)
    schedule = Schedule(epochs=8, learning_rate=0.1, temperature=1.0)
    fit(shared, parts.data, schedule, SETTING, Task(), seed=0, subnets=parts.sampler())
    ratios = np.random.default_rng(1).random((8, len(parts.space.variables)))
    gains = []
    for widths in parts.space.decode(ratios):
        named = dict(zip(parts.space.groups, widths.tolist(), strict=True))
        plan = plan_from_importance(parts.prunable, named, parts.ranking)
        scores = []
        for prunable in (parts.prunable, with_model(parts.prunable, shared)):
            small = rebuild(prunable, plan)
            calibrate(small, parts.data, 10, SETTING, seed=0)
            scores.append(evaluate(small, parts.data.val, Task(), SETTING))
        gains.append(scores[1] - scores[0])
    assert min(gains) > 0
    assert float(np.mean(gains)) > 0.1
