from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils import _pytree as pytree

from autoprune.criteria import (
    CRITERIA,
    CriterionInput,
    Importance,
    importance,
    make_plan,
    plan_from_importance,
)
from autoprune.criteria.gradients import TAYLOR_BATCHES
from autoprune.errors import DataError, PlanError
from autoprune.graph.groups import ChannelGroup, Member
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from tests.models import CASES


@dataclass(frozen=True)
class Traced:
    """Replaces a traced model in tests that state the groups by hand."""

    model: nn.Module
    groups: tuple[ChannelGroup, ...]


def every(width: int, m: int = 1) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    return np.arange(width * m, dtype=np.int64).reshape(width, m)


def member(parameter: str, axis: int, width: int, m: int = 1) -> Member:
    return Member(parameter, axis, every(width, m))


class Residual(nn.Module):
    """An addition ties stem and depthwise to `branch`; `inner` is free; the head reads a flat 2 x 2 map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.inner = nn.Conv2d(4, 6, 1)
        self.branch = nn.Conv2d(6, 4, 1, bias=False)
        self.branch_norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = self.depthwise(self.norm(self.stem(images)))
        x = x + self.branch_norm(self.branch(functional.relu(self.inner(x))))
        return self.head(self.drop(functional.adaptive_avg_pool2d(x, 2).flatten(1)))  # type: ignore[no-any-return]  # nn.Module calls give Any


def residual() -> Traced:
    torch.manual_seed(0)
    model = Residual()
    with torch.no_grad():
        for norm in (model.norm, model.branch_norm):
            norm.weight.uniform_(-1, 1)
            norm.get_buffer("running_mean").uniform_()
    trunk = [
        member(f"{layer}.weight", 0, 4) for layer in ("stem", "norm", "depthwise", "branch", "branch_norm")
    ]
    trunk += [member(f"{layer}.bias", 0, 4) for layer in ("norm", "depthwise", "branch_norm")]
    trunk += [member(f"{layer}.running_mean", 0, 4) for layer in ("norm", "branch_norm")]
    trunk += [member("inner.weight", 1, 4), member("head.weight", 1, 4, 4)]
    inner = [member("inner.weight", 0, 6), member("inner.bias", 0, 6), member("branch.weight", 1, 6)]
    classes = [member("head.weight", 0, 5), member("head.bias", 0, 5)]
    return Traced(
        model,
        (
            ChannelGroup("stem", 4, tuple(trunk)),
            ChannelGroup("inner", 6, tuple(inner)),
            ChannelGroup("head", 5, tuple(classes), frozen="the model's output"),
        ),
    )


def batches(count: int = 3, size: int = 8) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(size, 3, 6, 6, generator=generator), torch.randint(5, (size,), generator=generator))
        for _ in range(count)
    ]


def of_layer(model: nn.Module, name: str) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    weight = model.get_parameter(f"{name}.weight").detach().double()
    return weight.reshape(len(weight), -1).numpy()


def test_l1_and_l2_sum_the_filters_of_all_layers_that_write_into_the_group() -> None:
    traced = residual()
    layers = [of_layer(traced.model, name) for name in ("stem", "depthwise", "branch")]
    by_l1, by_l2 = importance(traced, "l1"), importance(traced, "l2")
    np.testing.assert_allclose(by_l1["stem"], sum(np.abs(layer).sum(1) for layer in layers), rtol=1e-12)
    np.testing.assert_allclose(by_l2["stem"], sum(np.sqrt((layer**2).sum(1)) for layer in layers), rtol=1e-12)
    np.testing.assert_allclose(by_l1["inner"], np.abs(of_layer(traced.model, "inner")).sum(1), rtol=1e-12)
    assert by_l1["stem"].dtype == np.float64


def test_frozen_groups_are_not_ranked() -> None:
    assert set(importance(residual())) == {"stem", "inner"}


def test_fpgm_ranks_the_filter_nearest_to_the_geometric_median_lowest() -> None:
    conv = nn.Conv2d(1, 4, 1, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([0.0, 1.0, 2.0, 10.0]).view(4, 1, 1, 1))
    traced = Traced(nn.Sequential(conv), (ChannelGroup("0", 4, (member("0.weight", 0, 4),)),))
    np.testing.assert_allclose(importance(traced, "fpgm")["0"], [13, 11, 11, 27], atol=1e-6)
    np.testing.assert_array_equal(make_plan(traced, {"0": 2}, "fpgm")["0"], [0, 3])


def test_bn_averages_the_scales_and_falls_back_to_l1_if_there_is_none() -> None:
    traced = residual()
    ranked = importance(traced, "bn")
    scales = [traced.model.get_parameter(f"{name}.weight").detach().abs() for name in ("norm", "branch_norm")]
    np.testing.assert_allclose(ranked["stem"], (scales[0] + scales[1]).double() / 2, rtol=1e-6)
    by_l1 = importance(traced, "l1")["inner"]
    np.testing.assert_allclose(ranked["inner"], by_l1 / by_l1.max(), rtol=1e-12)


def test_random_depends_on_the_seed_alone() -> None:
    traced = residual()
    first = importance(traced, "random", seed=3)
    torch.manual_seed(99)
    again, other = importance(traced, "random", seed=3), importance(traced, "random", seed=4)
    np.testing.assert_array_equal(first["stem"], again["stem"])
    assert not np.array_equal(first["stem"], other["stem"])


def test_taylor_equals_the_squared_products_of_ordinary_gradients() -> None:
    traced = residual()
    model, data = traced.model.eval(), batches()
    expected = np.zeros(6)
    for images, targets in data:
        model.zero_grad()
        functional.cross_entropy(model(images), targets).backward()  # type: ignore[no-untyped-call]  # torch's own
        for name in ("inner.weight", "inner.bias"):
            parameter = model.get_parameter(name)
            assert parameter.grad is not None
            product = (parameter * parameter.grad).detach().double()
            expected += product.reshape(6, -1).square().sum(1).numpy() / len(data)
    np.testing.assert_allclose(importance(traced, "taylor", data)["inner"], expected, rtol=1e-5)


def test_taylor_takes_the_users_loss_and_no_more_than_the_fixed_number_of_batches() -> None:
    traced, drawn = residual(), 0

    def stream() -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal drawn
        while True:
            drawn += 1
            yield torch.randn(4, 3, 6, 6), torch.zeros(4, dtype=torch.int64)

    plain = importance(traced, "taylor", stream(), seed=5)
    assert drawn == TAYLOR_BATCHES
    np.testing.assert_array_equal(importance(traced, "taylor", stream(), seed=5)["stem"], plain["stem"])
    doubled = importance(traced, "taylor", stream(), lambda y, t: 2 * functional.cross_entropy(y, t), seed=5)
    np.testing.assert_allclose(doubled["stem"], 4 * plain["stem"], rtol=1e-4)


def test_taylor_counts_a_shared_weight_once_per_use() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))  # type: ignore[no-any-return]  # nn.Module calls give Any

    traced = Traced(Shared(), (ChannelGroup("second", 4, (member("second.weight", 0, 4),)),))
    ranked = importance(traced, "taylor", [(torch.randn(8, 4), torch.randint(4, (8,)))])
    assert (ranked["second"] > 0).all()


GRAPH_CRITERIA = ("fisher", "activation", "apoz", "hrank", "chip")
DATA_CRITERIA = ("taylor", "lasso", "obs", *GRAPH_CRITERIA)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_plan_of_a_traced_model_rebuilds(criterion: str) -> None:
    by_hand = residual()
    prunable = trace(by_hand.model.eval(), torch.zeros(1, 3, 6, 6))
    plan = make_plan(prunable, 0.5, criterion, batches())
    assert sorted(plan.widths.values()) == [2, 3]
    if criterion not in ("random", *GRAPH_CRITERIA):
        expected = make_plan(by_hand, 0.5, criterion, batches())
        assert {tuple(index) for index in plan.values()} == {tuple(index) for index in expected.values()}
    assert rebuild(prunable, plan)(torch.zeros(2, 3, 6, 6)).shape == (2, 5)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_no_criterion_changes_the_dense_model_or_the_random_states(criterion: str) -> None:
    traced = trace(residual().model, torch.zeros(1, 3, 6, 6))
    traced.model.train()
    traced.model.get_submodule("norm").eval()
    traced.model.get_parameter("head.bias").requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in traced.model.state_dict().items()}
    modes = [module.training for module in traced.model.modules()]
    states = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=False)["state"]["key"]

    def noisy() -> Iterator[tuple[Tensor, Tensor]]:
        for images, targets in batches():
            yield images + torch.randn(()) * random.random() * np.random.rand(), targets

    importance(traced, criterion, noisy(), functional.cross_entropy)
    assert all(torch.equal(tensor, before[name]) for name, tensor in traced.model.state_dict().items())
    assert [module.training for module in traced.model.modules()] == modes
    assert all(parameter.grad is None for parameter in traced.model.parameters())
    assert not traced.model.get_parameter("head.bias").requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    np.testing.assert_array_equal(np.random.get_state(legacy=False)["state"]["key"], states[2])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_the_same_seed_gives_the_same_importance(criterion: str) -> None:
    traced = trace(residual().model, torch.zeros(1, 3, 6, 6))
    first = importance(traced, criterion, batches(), seed=2)
    torch.manual_seed(99)
    again = importance(traced, criterion, batches(), seed=2)
    for name in ("stem", "inner"):
        np.testing.assert_array_equal(first[name], again[name])


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"random", "fpgm"}))
def test_a_dead_channel_ranks_last(criterion: str) -> None:
    traced = trace(residual().model, torch.zeros(1, 3, 6, 6))
    with torch.no_grad():
        # No other channel dies in the ReLU, and none passes it as a linear function of others.
        traced.model.get_parameter("inner.weight").mul_(5)
        traced.model.get_parameter("inner.bias").fill_(0.3)
        for layer in ("stem", "norm", "depthwise", "branch", "branch_norm"):
            for name, parameter in traced.model.get_submodule(layer).named_parameters():
                assert name in ("weight", "bias")
                parameter[1] = 0
        for name in ("inner.weight", "inner.bias"):
            traced.model.get_parameter(name)[4] = 0
    ranked = importance(traced, criterion, batches())
    for name, dead in (("stem", 1), ("inner", 4)):
        assert (np.delete(ranked[name], dead) > ranked[name][dead]).all()


@pytest.mark.parametrize(
    "case",
    [
        *("concat", "depthwise", "squeeze_excite", "attention", "hand_attention", "two_inputs", "chunked"),
        *("transposed", "grouped_queries", "train_only_head", "global_filter"),
    ],
)
def test_every_criterion_ranks_every_free_group_of_a_model(case: str) -> None:
    torch.manual_seed(0)
    prunable = trace(CASES[case].make(), CASES[case].inputs)
    generator = torch.Generator().manual_seed(1)
    inputs = pytree.tree_map(
        lambda example: torch.randn(4, *example.shape[1:], generator=generator), prunable.example_inputs
    )
    data = [(inputs if isinstance(inputs, dict) else inputs[0], torch.zeros(4))]
    of_tensors = isinstance(inputs, tuple)
    for criterion in CRITERIA if of_tensors else set(CRITERIA) - {"obs", "lasso"}:
        ranked = importance(prunable, criterion, data, mean_square)
        assert {name: values.shape for name, values in ranked.items()} == {
            group.name: (group.width,) for group in prunable.groups if group.frozen is None
        }
        assert all(np.isfinite(values).all() for values in ranked.values())


def mean_square(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.square().mean() + 0 * targets.sum()


@pytest.mark.parametrize("criterion", DATA_CRITERIA)
def test_a_criterion_without_its_data_is_one_line(criterion: str) -> None:
    needs = rf'^criterion "{criterion}": needs (images|batches of data)\. Give make_plan'
    with pytest.raises(PlanError, match=needs) as caught:
        make_plan(residual(), 0.5, criterion)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("criterion", GRAPH_CRITERIA)
def test_groups_without_a_graph_have_no_feature_maps(criterion: str) -> None:
    with pytest.raises(
        PlanError, match=f'"{criterion}": needs the graph of the model. Pass the result of autoprune.trace'
    ):
        importance(residual(), criterion, batches())


def test_lamp_divides_by_all_filters_that_are_at_least_as_large() -> None:
    traced = residual()
    expected = {}
    for name, layers in (("stem", ("stem", "depthwise", "branch")), ("inner", ("inner",))):
        scores = np.zeros(len(of_layer(traced.model, name)))
        for layer in layers:
            norms = (of_layer(traced.model, layer) ** 2).sum(1)
            for channel, norm in enumerate(norms):
                scores[channel] += norm / sum(other for other in norms if other >= norm) / len(layers)
        expected[name] = scores
    found = importance(traced, "lamp")
    for name, scores in expected.items():
        np.testing.assert_allclose(found[name], scores, rtol=1e-12)
    assert found["inner"].max() == 1


def test_channels_of_several_positions_sum_over_them() -> None:
    linear = nn.Linear(3, 8)
    index = np.stack([np.arange(4), np.arange(4) + 4], axis=1)  # channel c computes the features c and c + 4
    traced = Traced(nn.Sequential(linear), (ChannelGroup("0", 4, (Member("0.weight", 0, index),)),))
    rows = linear.weight.detach().double().abs().sum(1).numpy()
    np.testing.assert_allclose(importance(traced)["0"], rows[:4] + rows[4:], rtol=1e-12)


@pytest.mark.parametrize(
    ("layer", "axis", "width", "m"),
    [
        (nn.ConvTranspose2d(3, 4, 2), 1, 4, 1),
        (nn.ConvTranspose2d(4, 8, 2, groups=4), 0, 4, 1),
        (nn.Conv2d(8, 8, 3, groups=4), 0, 4, 2),
        (nn.Embedding(7, 4), 1, 4, 1),
    ],
)
def test_the_output_side_of_each_kind_of_weight(layer: nn.Module, axis: int, width: int, m: int) -> None:
    reader = nn.Linear(width * m, 2)
    members = (member("0.weight", axis, width, m), member("1.weight", 1, width, m))
    traced = Traced(nn.Sequential(layer, reader), (ChannelGroup("0", width, members),))
    weight = layer.get_parameter("weight").detach().double().movedim(axis, 0)
    expected = weight.reshape(width, -1).abs().sum(1).numpy()
    np.testing.assert_allclose(importance(traced)["0"], expected, rtol=1e-12)


def test_a_weight_norm_counts_as_the_weight_that_the_layer_uses() -> None:
    conv = weight_norm(nn.Conv2d(2, 4, 3, bias=False))
    names = ("0.parametrizations.weight.original0", "0.parametrizations.weight.original1")
    traced = Traced(nn.Sequential(conv), (ChannelGroup("0", 4, tuple(member(n, 0, 4) for n in names)),))
    expected = conv.weight.detach().double().reshape(4, -1).abs().sum(1).numpy()
    np.testing.assert_allclose(importance(traced)["0"], expected, rtol=1e-12)


def test_a_group_that_no_weight_writes_is_ranked_by_those_that_read_it() -> None:
    linear = nn.Linear(4, 3)
    traced = Traced(nn.Sequential(linear), (ChannelGroup("input", 4, (member("0.weight", 1, 4),)),))
    np.testing.assert_allclose(
        importance(traced)["input"], linear.weight.detach().double().abs().sum(0).numpy(), rtol=1e-12
    )


def test_a_ratio_keeps_the_most_important_of_every_free_group() -> None:
    traced = residual()
    plan = make_plan(traced, 0.5)
    assert plan.widths == {"stem": 2, "inner": 3}
    for name, values in importance(traced).items():
        kept, lost = values[plan[name]], np.delete(values, plan[name])
        assert kept.min() > lost.max()
        assert plan[name].dtype == np.int64
        assert (np.diff(plan[name]) > 0).all()


@pytest.mark.parametrize(
    ("ratio", "widths"),
    [
        (1.0, {}),
        (0.01, {"stem": 1, "inner": 1}),
        (0.6, {"stem": 2, "inner": 4}),
        ({"stem": 1}, {"stem": 1}),
        ({"stem": 1.0, "inner": 5}, {"inner": 5}),
        ({"stem": 0.625, "inner": np.int64(2)}, {"stem": 3, "inner": 2}),
        ({"head": 5, "inner": np.float32(0.5)}, {"inner": 3}),
    ],
)
def test_ratios_and_widths(ratio: float | dict[str, int | float], widths: dict[str, int]) -> None:
    assert make_plan(residual(), ratio).widths == widths


def test_ties_go_to_the_lower_index() -> None:
    plan = plan_from_importance(residual(), {"inner": 3}, {"inner": np.array([1.0, 2, 1, 1, 2, 1])})
    np.testing.assert_array_equal(plan["inner"], [0, 1, 4])


def test_a_criterion_of_the_users_own() -> None:
    def last(given: CriterionInput) -> Importance:
        return {group.name: np.arange(group.width, dtype=np.float64) for group in given.groups}

    np.testing.assert_array_equal(make_plan(residual(), {"inner": 2}, last)["inner"], [4, 5])

    def short(given: CriterionInput) -> Importance:
        return {"stem": np.zeros(3)}

    with pytest.raises(PlanError, match=r'criterion "short": group "stem" needs .* shape \(4,\), got \(3,\)'):
        make_plan(residual(), 0.5, short)


def test_the_importance_of_a_users_criterion_is_an_array_whatever_it_gives() -> None:
    def scales(given: CriterionInput) -> Any:
        return {group.name: nn.Parameter(torch.ones(group.width)) for group in given.groups}

    found = importance(residual(), scales)
    assert {type(values) for values in found.values()} == {np.ndarray}
    assert {values.dtype for values in found.values()} == {np.dtype(np.float64)}

    def nothing(given: CriterionInput) -> Any:
        return None

    with pytest.raises(PlanError, match=r'criterion "nothing": it gave a NoneType, expected \{group name'):
        importance(residual(), nothing)


IMAGES, LABELS = torch.zeros(4, 3, 2, 2), torch.zeros(4, dtype=torch.int64)


@pytest.mark.parametrize(
    ("batch", "loss", "said"),
    [
        ((IMAGES[0], LABELS[0]), None, "expected 4D input"),
        ((IMAGES, LABELS + 77), None, "IndexError"),
        ((IMAGES, LABELS), nn.CrossEntropyLoss(reduction="none"), "scalar outputs"),
        ((IMAGES, LABELS), lambda outputs, targets: 3.0, "TypeError"),
    ],
    ids=["no batch axis", "labels out of range", "a loss each", "no tensor"],
)
def test_a_batch_without_a_gradient_is_refused_in_one_line(batch: Any, loss: Any, said: str) -> None:
    with pytest.raises(DataError, match=r'^criterion "taylor": the gradient of the loss failed') as caught:
        importance(residual(), "taylor", [batch], loss)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("ratio", "message"),
    [
        ({5: 2}, r'Group "5": the model has no such group'),
        ({"stam": 2}, r'Group "stam": the model has no such group. Did you mean "stem"\?'),
        ({"stem": 0}, r'Group "stem": got width 0, expected one in \[1, 4\]'),
        ({"stem": 5}, r'Group "stem": got width 5, expected one in \[1, 4\]'),
        ({"stem": 1.5}, r'Group "stem": got the keep ratio 1.5, expected one in \(0, 1\]'),
        ({"stem": float("nan")}, r'Group "stem": got the keep ratio nan'),
        ({"stem": True}, r'Group "stem": got True, expected a width'),
        ({"head": 2}, r'Group "head": got width 2 of 5, but it is frozen \(the model\'s output\)'),
        (0.0, r"got the keep ratio 0.0, expected one in \(0, 1\]"),
        (1.2, r"got the keep ratio 1.2"),
        (1, r"Keep ratio: got 1, expected a float in \(0, 1\]"),
    ],
)
def test_a_width_or_ratio_that_does_not_fit(ratio: float | dict[str, int | float], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        make_plan(residual(), ratio)


def test_bad_criteria_and_data() -> None:
    traced = residual()
    with pytest.raises(PlanError, match=r'criterion: unknown name "tailor"\. Did you mean "taylor"\?'):
        importance(traced, "tailor")
    with pytest.raises(PlanError, match=r"seed: got -1, expected 0 or more\."):
        importance(traced, "random", seed=-1)
    with pytest.raises(DataError, match="the data gave no batch"):
        importance(traced, "taylor", [])
    with pytest.raises(DataError, match="the data gave a Tensor, expected batches"):
        importance(traced, "taylor", [torch.zeros(4, 3, 6, 6)])
    with pytest.raises(PlanError, match=r'importance of group "stem" is not finite'):
        importance(
            traced, "taylor", [(torch.full((4, 3, 6, 6), torch.nan), torch.zeros(4, dtype=torch.int64))]
        )
    with pytest.raises(PlanError, match=r'"inner": 6 channels need an importance of shape \(6,\), got none'):
        plan_from_importance(traced, {"inner": 3}, {})
