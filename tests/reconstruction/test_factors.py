"""Refits from one factor equal direct ones at every width. Plans without a ranking are refitted directly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.criteria import plan_from_importance
from autoprune.graph import Plan, Prunable
from autoprune.reconstruction import Moments, _layer_moments, moments, repair_closed
from autoprune.reconstruction._factors import factorise, ranked_inputs
from autoprune.reconstruction._leastsquares import refit
from autoprune.reconstruction._products import Products
from tests.reconstruction.nets import Residual, images, traced, trained_like

INPUTS, OUTPUTS = 12, 5
RANKING = np.array([4, 1, 5, 0, 3, 2])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_refit_from_the_factor_is_the_direct_one_at_every_width(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(200, INPUTS, generator=generator, dtype=torch.float64)
    rows = rows @ torch.randn(INPUTS, INPUTS, generator=generator, dtype=torch.float64)
    moment, strength = rows.T @ rows / len(rows), 0.02
    weight = torch.randn(OUTPUTS, INPUTS, generator=generator, dtype=torch.float64)
    order, outputs = torch.randperm(INPUTS, generator=generator), torch.tensor([0, 2, 3])
    factor = factorise(moment[order[:, None], order].to(dtype), weight, order, strength)
    for kept in range(1, INPUTS + 1):
        places = order[:kept].sort().values
        found = factor.refit(weight[outputs][:, places], outputs)
        cross = weight[outputs] @ moment
        power = (cross * weight[outputs]).sum(dim=1)
        expected = refit(
            moment[places[:, None], places][None],
            cross[None][..., places],
            weight[outputs][None][..., places],
            power[None],
            torch.tensor([strength], dtype=torch.float64),
        )
        tolerance = 1e-9 if dtype == torch.float64 else 1e-3
        for name in ("weight", "lost", "power", "reached"):
            actual = getattr(found, name).double()
            torch.testing.assert_close(actual, getattr(expected, name), rtol=tolerance, atol=tolerance)


class Kinds(nn.Module):
    """Layers that read one group, two groups, and the channels of a flattened map."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.one = nn.Conv2d(6, 6, 3, padding=1)
        self.up = nn.ConvTranspose2d(6, 6, 2)
        self.two = nn.Conv2d(12, 6, 1)
        self.flat = nn.Linear(6 * 36, 5)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits [n, 5]."""
        stem = torch.relu(self.stem(batch))
        one = torch.relu(self.one(stem))
        both = torch.relu(self.two(torch.cat([torch.relu(self.up(one))[..., 1:, 1:], stem], dim=1)))
        logits: Tensor = self.flat(both.flatten(1))
        return logits


@pytest.fixture(scope="module")
def prunable() -> Prunable:
    return traced(trained_like(Kinds()))


@pytest.fixture(scope="module")
def measured(prunable: Prunable) -> Moments:
    return moments(prunable, [images()])


def plan_of(prunable: Prunable, width: int) -> Plan:
    """Keep channels of each group by RANKING."""
    importance = {group.name: -np.argsort(RANKING).astype(float) for group in prunable.searchable}
    return plan_from_importance(prunable, dict.fromkeys(importance, width), importance)


def test_only_the_inputs_of_one_ranked_group_have_an_order(prunable: Prunable, measured: Moments) -> None:
    plan = plan_of(prunable, 4)

    def order(name: str, plan: Plan = plan) -> Tensor | None:
        return ranked_inputs(prunable, plan, f"{name}.weight", measured.layers[f"{name}.weight"])

    for name, positions in (("one", 9), ("up", 4), ("flat", 36)):
        found = order(name)
        assert found is not None
        expected = torch.from_numpy(RANKING)[:, None] * positions + torch.arange(positions)
        assert torch.equal(found, expected.flatten())
    assert order("two") is None
    assert order("one", Plan(plan.keep)) is None
    assert order("one", autoprune.make_plan(prunable, 0.5)) is not None


@pytest.mark.parametrize("width", [2, 3, 5])
@pytest.mark.parametrize("pooled", [False, True])
def test_a_repair_by_a_ranking_is_the_direct_one(
    prunable: Prunable, measured: Moments, width: int, pooled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_layer_moments, "_ROWS", 20)
    if pooled:
        measured = moments(prunable, [images()], limit_bytes=8000)
        assert measured.layers["one.weight"].span == 9
    plan = plan_of(prunable, width)
    assert plan.ranking
    small = autoprune.rebuild(prunable, plan)
    expected = repair_closed(prunable, Plan(plan.keep), small, measured)
    found = repair_closed(prunable, plan, small, measured)
    assert found.errors == pytest.approx(expected.errors, abs=1e-9)
    for name, tensor in expected.model.state_dict().items():
        torch.testing.assert_close(found.model.state_dict()[name], tensor, rtol=1e-9, atol=1e-9)


def test_factors_stay_within_the_memory_limit() -> None:
    """The largest layers come first. A second ranking takes the place of the first."""
    model = trained_like(Residual())
    prunable = traced(model)
    measured = moments(prunable, [images()])
    name, small = "second.0.weight", "head.weight"
    used = sum(layer.second.nbytes for layer in measured.layers.values())
    room = (measured.layers[name].second.nbytes + model.get_parameter(name).nbytes) * 2 + 200
    products = Products(model, measured, torch.device("cpu"), limit_bytes=used + room)
    order = torch.arange(54)
    first = products.factor(name, order, 0.1, centred=True, dtype=torch.float64)
    assert first is not None
    assert first.lower.nbytes + first.parts.nbytes == (room - 200) // 2
    assert products.factor(name, order.clone(), 0.1, centred=True, dtype=torch.float64) is first
    for _ in range(2):
        assert products.factor(name, order.flip(0), 0.1, centred=True, dtype=torch.float64) is not None
        assert products.factor("first.0.weight", order, 0.1, centred=True, dtype=torch.float64) is not None
    assert products.factor(name, order, 0.1, centred=True, dtype=torch.float64) is not first
    assert products.factor(small, torch.arange(6), 0.1, centred=True, dtype=torch.float64) is None
    assert products.factor(small, torch.arange(6), 0.1, centred=True, dtype=torch.float32) is not None


def test_new_weights_have_new_factors() -> None:
    model = trained_like(Residual())
    products = Products(model, moments(traced(model), [images()]), torch.device("cpu"))

    def parts() -> Tensor:
        factor = products.factor("head.weight", torch.arange(6), 0.1, centred=True, dtype=torch.float64)
        assert factor is not None
        return factor.parts

    before = parts()
    with torch.no_grad():
        model.get_parameter("head.weight").mul_(2)
    torch.testing.assert_close(parts(), 2 * before)
