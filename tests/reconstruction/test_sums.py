"""Moments under a limit of memory."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

import autoprune
from autoprune.graph import Plan, Prunable
from autoprune.reconstruction import Readers, measure_model, moments, repair_closed
from autoprune.reconstruction._sums import precise_device
from tests.reconstruction.nets import Residual, images, trained_like

ALL = 10**6


class Flattened(nn.Module):
    """A linear layer that reads a flattened map: a channel spans 9 of its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Linear(54, 7)
        self.head = nn.Linear(7, 4)

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits [n, 4]."""
        logits: Tensor = self.head(torch.relu(self.fc(torch.relu(self.conv(batch)).flatten(1))))
        return logits


def flattened() -> tuple[Prunable, Tensor]:
    """Return the traced net and the inputs of its layer `fc`, [n, channels, positions]."""
    prunable = autoprune.trace(trained_like(Flattened()), images(1))
    with torch.no_grad():
        maps = torch.relu(prunable.model.get_submodule("conv")(images()))
    return prunable, maps.flatten(2)


def test_the_largest_are_pooled_first_and_then_left_out(caplog: pytest.LogCaptureFixture) -> None:
    prunable, _ = flattened()
    sizes = {name: layer.second.nbytes for name, layer in moments(prunable, [images()]).layers.items()}
    assert max(sizes, key=sizes.__getitem__) == "fc.weight"
    with caplog.at_level(logging.INFO):
        pooled = moments(prunable, [images()], limit_bytes=sum(sizes.values()) - 1)
    assert {name: layer.span for name, layer in pooled.layers.items()} == {
        "conv.weight": 1,
        "fc.weight": 9,
        "head.weight": 1,
    }
    assert pooled.left_out == {}
    assert "fc.weight: pooled over the 9 positions of a patch" in caplog.text
    smallest = 8 * (3 * 3 + 6 * 6 + 7 * 7)
    assert all(layer.second.nbytes <= 8 * 49 for layer in pooled.layers.values() if layer.span > 1)
    least = moments(prunable, [images()], limit_bytes=smallest)
    assert least.layers["conv.weight"].span == least.layers["fc.weight"].span == 9
    with caplog.at_level(logging.WARNING):
        without = moments(prunable, [images()], limit_bytes=smallest - 1)
    assert set(without.left_out) == {"head.weight"}
    assert "head.weight is left out: its moments take 0 MB, which exceeds the limit" in caplog.text
    assert moments(prunable, [images()], limit_bytes=0).layers == {}


def test_pooled_moments_are_those_of_channels_at_all_positions() -> None:
    prunable, maps = flattened()
    layer = moments(prunable, [images()[:13], images()[13:]], limit_bytes=2000).layers["fc.weight"]
    assert layer.span == 9
    rows = maps.transpose(1, 2)  # [n, positions, channels]
    torch.testing.assert_close(layer.second[0], rows.flatten(0, 1).T @ rows.flatten(0, 1) / (40 * 9))
    torch.testing.assert_close(layer.mean[0], maps.flatten(1).mean(dim=0))
    centred = rows - rows.mean(dim=0)
    expected = centred.flatten(0, 1).T @ centred.flatten(0, 1) / (40 * 9)
    torch.testing.assert_close(layer.covariance[0], expected)


def test_sums_that_are_pooled_on_the_way_are_those_that_were_pooled_from_the_start() -> None:
    """A first layer is whole until a later one finds no room; by then it has rows of a batch."""
    model = trained_like(Residual())
    sizes = {name: layer.second.nbytes for name, layer in measure_model(model, [images()]).layers.items()}
    first = "first.0.weight"  # as large as the second, so it gives way as that one comes
    late = measure_model(model, [images()], positions=ALL, limit_bytes=sum(sizes.values()) - 1)
    early = measure_model(model, [images()], positions=ALL, limit_bytes=sizes[first] // 2)
    assert late.layers[first].span == early.layers[first].span == 9
    torch.testing.assert_close(late.layers[first].second, early.layers[first].second)


def test_the_pooled_refit_mixes_channels_alike_at_all_positions() -> None:
    """It is the least-squares fit of what each position adds to each output."""
    prunable, maps = flattened()
    measured = moments(prunable, [images()], limit_bytes=2000)
    plan = Plan({"conv": np.array([0, 2, 3, 5])})
    small = autoprune.rebuild(prunable, plan)
    repaired = repair_closed(prunable, plan, small, measured, ridge=1e-13).model
    dense = prunable.model.get_parameter("fc.weight").detach().reshape(7, 6, 9)
    centred = maps - maps.mean(dim=0)
    added = torch.einsum("ncp,ocp->npco", centred, dense).sum(dim=2).flatten(0, 1)  # [n x positions, outputs]
    fitted = torch.linalg.lstsq(centred[:, [0, 2, 3, 5]].transpose(1, 2).flatten(0, 1), added)
    assert fitted.solution.shape == (4, 7)
    # One mixture for all positions: each removed channel is the same sum of kept ones everywhere.
    gone = torch.linalg.lstsq(
        centred[:, [0, 2, 3, 5]].transpose(1, 2).flatten(0, 1),
        centred[:, [1, 4]].transpose(1, 2).flatten(0, 1),
    ).solution  # [kept, gone]
    expected = dense[:, [0, 2, 3, 5]] + torch.einsum("kg,ogp->okp", gone, dense[:, [1, 4]])
    torch.testing.assert_close(repaired.get_parameter("fc.weight"), expected.flatten(1), rtol=1e-8, atol=1e-8)
    # The constant makes up for the mean of all that is lost.
    mean = torch.zeros(40, 7, dtype=torch.float64)
    with torch.no_grad():
        before = functional.linear(maps.flatten(1), dense.flatten(1), prunable.model.get_parameter("fc.bias"))
        kept = maps[:, [0, 2, 3, 5]].flatten(1)
        after = repaired.get_submodule("fc")(kept)
    mean = (after - before).mean(dim=0)
    torch.testing.assert_close(mean, torch.zeros_like(mean), rtol=0, atol=1e-9)


def test_a_copied_channel_costs_nothing_with_pooled_moments_too() -> None:
    model = trained_like(Residual())
    with torch.no_grad():
        for name in ("0.weight", "1.weight", "1.bias"):
            model.get_parameter(f"first.{name}")[1] = model.get_parameter(f"first.{name}")[4]
        for name in ("running_mean", "running_var"):
            model.get_buffer(f"first.1.{name}")[1] = model.get_buffer(f"first.1.{name}")[4]
    prunable = autoprune.trace(model, images(1))
    measured = moments(prunable, [images()], limit_bytes=10_000)
    assert measured.layers["second.0.weight"].span == 9
    plan = Plan({"first.0": np.array([0, 2, 3, 4, 5])})
    small = autoprune.rebuild(prunable, plan)
    repaired = repair_closed(prunable, plan, small, measured, ridge=1e-9)
    with torch.no_grad():
        dense, cut, better = (each.eval()(images()) for each in (model, small, repaired.model))
    assert float((better - dense).norm()) < 1e-6 * float((cut - dense).norm())
    assert repaired.errors["second.0.weight"] < 1e-6


def test_criteria_read_pooled_moments() -> None:
    prunable, maps = flattened()
    measured = moments(prunable, [images()], limit_bytes=2000)
    (group,) = (each for each in prunable.groups if each.name == "conv")
    (reader,) = Readers(prunable.model, measured).of(group)
    assert reader.index.tolist() == [[channel] for channel in range(6)]
    centred = (maps - maps.mean(dim=0)).transpose(1, 2).flatten(0, 1)
    weight = prunable.model.get_parameter("fc.weight").detach().reshape(7, 6, 9)
    power = torch.einsum("rc,ocp->rop", centred, weight).square().mean(dim=0).sum()
    torch.testing.assert_close(((reader.weight @ reader.moment) * reader.weight).sum(), power)


def test_sums_are_on_the_device_unless_it_has_no_float64() -> None:
    assert precise_device(torch.device("mps")) == torch.device("cpu")
    assert precise_device(torch.device("cuda", 1)) == torch.device("cuda", 1)
