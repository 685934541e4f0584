"""Gradients of the penalties against formulas written by hand, and penalties of the user's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune import sparsity
from autoprune.errors import ConfigError
from autoprune.graph import Plan, Prunable
from autoprune.sparsity import PENALTIES, PenaltyHook
from autoprune.support.rows import find_row
from autoprune.training import Moment
from tests.models import Residual
from tests.own_rows import install_example

STRENGTH = 0.25


class NormedConcat(nn.Module):
    """One BatchNorm scales two groups, and the three channels of the input, which are no group's."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
        self.bn = nn.BatchNorm2d(13)
        self.head = nn.Conv2d(13, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = torch.cat([self.a(x), x, self.b(x)], 1)
        return self.head(self.bn(joined).relu())  # type: ignore[no-any-return]  # modules return Any


@pytest.fixture(scope="module", params=[Residual, NormedConcat], ids=lambda each: str(each.__name__))
def prunable(request: pytest.FixtureRequest) -> Prunable:
    torch.manual_seed(0)
    model: nn.Module = request.param()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return autoprune.trace(model, torch.randn(2, 3, 8, 8))


def gradients(prunable: Prunable, penalty: str, progress: float = 0.5, **arguments: Any) -> dict[str, Tensor]:
    """Return the gradients that a step adds to a model without any."""
    spec = find_row(penalty, PENALTIES, "sparsify.penalty", sparsity.PenaltySpec)
    hook = PenaltyHook(prunable, penalty, spec, STRENGTH, every=1, **arguments)
    model = prunable.model
    model.zero_grad(set_to_none=True)
    hook.begin(model)
    hook.after_backward(model, Moment(round(progress * 100), 100, 0.1))
    found = {
        name: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for name, parameter in model.named_parameters()
    }
    model.zero_grad(set_to_none=True)
    return found


def scales(prunable: Prunable) -> dict[str, Tensor]:
    """Return the scales of searchable groups, with NaN at the positions of other channels."""
    found: dict[str, Tensor] = {}
    for group in prunable.searchable:
        for member in group.members:
            path, _, leaf = member.parameter.rpartition(".")
            if leaf == "weight" and isinstance(prunable.model.get_submodule(path), nn.BatchNorm2d):
                whole = prunable.model.get_parameter(member.parameter).detach()
                part = found.setdefault(member.parameter, torch.full_like(whole, torch.nan))
                index = torch.from_numpy(member.index.reshape(-1))
                part[index] = whole[index]
    return found


def test_the_gradient_of_bn_l1_is_the_sign(prunable: Prunable) -> None:
    found = gradients(prunable, "bn-l1")
    expected = scales(prunable)
    assert expected
    for name, gradient in found.items():
        signs = expected.get(name, torch.full_like(gradient, torch.nan)).sign().nan_to_num()
        torch.testing.assert_close(gradient, STRENGTH * signs)


def test_the_gradient_of_polarization_pulls_apart_at_the_mean(prunable: Prunable) -> None:
    found = gradients(prunable, "polarization", options={"t": 1.4})
    expected = scales(prunable)
    sizes = torch.cat([each[~each.isnan()] for each in expected.values()]).abs()
    sides = (sizes - sizes.mean()).sign()
    for name, values in expected.items():
        side = (values.abs() - sizes.mean()).sign()
        by_hand = STRENGTH * values.sign() * (1.4 - side + sides.mean())
        torch.testing.assert_close(found[name], by_hand.nan_to_num())


def slices(prunable: Prunable, group_name: str) -> list[tuple[str, int, np.ndarray[Any, Any]]]:
    group = prunable.group(group_name)
    names = dict(prunable.model.named_parameters())
    return [(each.parameter, each.axis, each.index) for each in group.members if each.parameter in names]


def channel_norm(prunable: Prunable, group_name: str, channel: int) -> float:
    total = 0.0
    for name, axis, index in slices(prunable, group_name):
        parameter = prunable.model.get_parameter(name).detach().double()
        total += float(parameter.index_select(axis, torch.from_numpy(index[channel])).square().sum())
    return float(np.sqrt(total))


def test_the_gradient_of_group_lasso_is_the_weighted_unit_vector_of_each_channel(prunable: Prunable) -> None:
    found = gradients(prunable, "group-lasso", options={"alpha": 3.0})
    by_hand = {name: torch.zeros_like(each) for name, each in found.items()}
    for group in prunable.searchable:
        norms = [channel_norm(prunable, group.name, channel) for channel in range(group.width)]
        for channel, norm in enumerate(norms):
            factor = 2 ** (3.0 * (max(norms) - norm) / (max(norms) - min(norms)))
            for name, axis, index in slices(prunable, group.name):
                positions = torch.from_numpy(index[channel])
                part = prunable.model.get_parameter(name).detach().index_select(axis, positions)
                by_hand[name].index_add_(axis, positions, STRENGTH * factor / norm * part)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, by_hand[name])


def test_norms_that_are_equal_or_zero_have_finite_gradients() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    prunable = autoprune.trace(model, torch.zeros(1, 1, 2, 2))
    assert all(not bool(each.any()) for each in gradients(prunable, "group-lasso").values())
    nn.init.ones_(model.get_parameter("0.weight"))
    found = gradients(prunable, "group-lasso")
    torch.testing.assert_close(found["0.weight"], torch.full((4, 1, 1, 1), STRENGTH))


def test_the_gradient_of_growing_grows_on_the_channels_that_go(prunable: Prunable) -> None:
    group = prunable.searchable[0]
    plan = Plan({group.name: np.arange(1, group.width)})
    for progress, factor in ((0.25, 0.5), (0.5, 1.0), (0.9, 1.0)):
        found = gradients(prunable, "growing", progress, plan=plan, options={"rise": 0.5})
        by_hand = {name: torch.zeros_like(each) for name, each in found.items()}
        for name, axis, index in slices(prunable, group.name):
            positions = torch.from_numpy(index[0])
            part = prunable.model.get_parameter(name).detach().index_select(axis, positions)
            by_hand[name].index_add_(axis, positions, STRENGTH * factor * part)
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, by_hand[name])


def test_a_proximal_step_shrinks_by_the_learning_rate_times_the_strength() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 1, 1))
    model[1].weight.data = torch.tensor([0.5, -0.3, 0.01])
    prunable = autoprune.trace(model, torch.zeros(1, 1, 2, 2))
    hook = PenaltyHook(prunable, "bn-l1-proximal", PENALTIES["bn-l1-proximal"], 0.2, every=1)
    hook.begin(model)
    hook.after_backward(model, Moment(0, 1, 0.5))
    assert model[1].weight.grad is None
    hook.after_step(model, Moment(0, 1, 0.5))
    torch.testing.assert_close(model[1].weight.detach(), torch.tensor([0.4, -0.2, 0.0]))
    assert hook.history.share_below(0.1) == (1 / 3, 1 / 3)


def test_a_penalty_of_the_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prunable: Prunable
) -> None:
    module = install_example(sparsity, tmp_path, monkeypatch)
    found = gradients(prunable, f"{module}:squares", options={"factor": 3.0})
    for name, values in scales(prunable).items():
        torch.testing.assert_close(found[name], STRENGTH * 6 * values.nan_to_num())
    spec = find_row(f"{module}:decoupled", PENALTIES, "sparsify.penalty", sparsity.PenaltySpec)
    assert spec.proximal is not None
    assert float(spec.proximal(torch.tensor(1.0), 1.0)) == 0.5


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("raise ValueError('no idea')", r'sparsify.penalty: "own_bad:p" failed: ValueError: no idea'),
        ("return 1.0", r'"own_bad:p" gave 1.0, expected a scalar tensor with a gradient'),
        ("return given.scales[0]", "expected a scalar tensor with a gradient"),
    ],
)
def test_errors_of_a_users_own_penalty_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prunable: Prunable, body: str, message: str
) -> None:
    import sys

    (tmp_path / "own_bad.py").write_text(f"def p(given): {body}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "own_bad", raising=False)
    with pytest.raises(ConfigError, match=message):
        gradients(prunable, "own_bad:p")
