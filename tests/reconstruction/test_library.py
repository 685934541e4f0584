"""The error library against brute-force refits on explicit patches, and what it does without moments."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

import autoprune
from autoprune.criteria import plan_from_importance
from autoprune.graph import Prunable
from autoprune.reconstruction import ErrorLibrary, Moments, error_library, moments, repair_closed
from autoprune.reconstruction._library import UNREAD
from tests.reconstruction.nets import Residual, images, traced, trained_like
from tests.reconstruction.test_uses import ONE_INPUT
from tests.reconstruction.test_uses import traced as tricky

POSITIONS = 36
"""All output positions of an image: explicit patches then are the same rows."""


@pytest.fixture(scope="module")
def prunable() -> Prunable:
    return traced(trained_like(Residual()))


@pytest.fixture(scope="module")
def measured(prunable: Prunable) -> Moments:
    return moments(prunable, [images()], positions=POSITIONS)


def rows_and_weight(prunable: Prunable, layer: str) -> tuple[Tensor, Tensor]:
    """Return the explicit input patches [n, channels, kernel] of a layer, and its weight [outputs, patch]."""
    module = prunable.model.get_submodule(layer)
    seen: list[Tensor] = []
    with module.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0])), torch.no_grad():
        prunable.model(images())
    weight = module.get_parameter("weight").detach()
    rows = seen[0]
    if weight.ndim == 4:
        rows = functional.unfold(rows, 3, padding=1).transpose(1, 2).flatten(0, 1)
    return rows.reshape(len(rows), weight.shape[1], -1), weight.flatten(1)


def refitted_error(prunable: Prunable, layer: str, kept: list[int]) -> float:
    """Return the share of the output's variance that the best weights over some channels leave."""
    rows, weight = rows_and_weight(prunable, layer)
    outputs = rows.flatten(1) @ weight.T
    outputs = outputs - outputs.mean(dim=0)
    inputs = (rows - rows.mean(dim=0))[:, kept].flatten(1)
    fitted = inputs @ torch.linalg.lstsq(inputs, outputs).solution
    return float((outputs - fitted).square().sum() / outputs.square().sum())


@pytest.mark.parametrize(("group", "layers"), [("stem.0", ["first.0", "head"]), ("first.0", ["second.0"])])
def test_a_curve_is_the_error_of_brute_force_refits_at_every_width(
    prunable: Prunable, measured: Moments, group: str, layers: list[str]
) -> None:
    library = error_library(prunable.model, prunable.searchable, measured, ridge=1e-12)
    curve = library.curves[group]
    assert curve.order is not None
    assert curve.estimate is None
    for width in range(1, curve.width + 1):
        kept = sorted(curve.order[:width].tolist())
        expected = sum(refitted_error(prunable, layer, kept) for layer in layers)
        assert curve.errors[width] == pytest.approx(expected, abs=1e-8)
    assert curve.errors[0] == pytest.approx(len(layers), abs=1e-8)


def test_curves_fall_to_zero_and_progress_is_reported(prunable: Prunable, measured: Moments) -> None:
    done: list[int] = []
    library = error_library(prunable.model, prunable.searchable, measured, done=done.append)
    assert done == list(range(1, len(prunable.searchable) + 1))
    assert library.estimated == {}
    for group in prunable.searchable:
        curve = library.curves[group.name]
        assert curve.width == group.width
        assert (np.diff(curve.errors) <= 0).all()
        assert curve.errors[-1] == curve.at(1.0) == 0
        assert curve.at(0.75) == pytest.approx((curve.errors[4] + curve.errors[5]) / 2)
    widths = {"stem.0": 3, "first.0": 2}
    assert library.total(widths) == sum(library.curves[name].errors[width] for name, width in widths.items())


@pytest.mark.parametrize("width", range(1, 6))
def test_the_closed_repair_of_one_narrowed_group_has_at_most_the_error_of_its_curve(
    width: int, prunable: Prunable, measured: Moments
) -> None:
    curve = error_library(prunable.model, prunable.searchable, measured).curves["first.0"]
    assert curve.order is not None
    ranked = {"first.0": np.empty(curve.width)}
    ranked["first.0"][curve.order] = np.arange(curve.width, 0, -1)
    plan = plan_from_importance(prunable, {"first.0": width}, ranked)
    error = repair_closed(prunable, plan, autoprune.rebuild(prunable, plan), measured).errors[
        "second.0.weight"
    ]
    assert error <= curve.errors[width] + 1e-12
    assert error == pytest.approx(curve.errors[width], abs=0.01)


def test_a_library_is_read_back_from_a_study_exactly(prunable: Prunable, measured: Moments) -> None:
    library = error_library(prunable.model, prunable.searchable, measured)
    widths = {group.name: group.width for group in prunable.searchable}
    stored = json.loads(json.dumps(library.to_json()))
    read = ErrorLibrary.from_json(stored, widths)
    assert read.estimated == library.estimated
    for name, curve in library.curves.items():
        np.testing.assert_array_equal(read.curves[name].errors, curve.errors)
    name, text = next(iter(stored["curves"].items()))
    earlier = {key: value for key, value in stored.items() if key != "curves"}
    for damaged, message in (
        (earlier, "curves: missing"),
        ({**stored, "curves": {**stored["curves"], name: text[:-8]}}, f"curves: {name}: "),
        ({**stored, "curves": {**stored["curves"], name: 7}}, f"curves: {name}: TypeError"),
        ({**stored, "curves": {}}, "curves: .*: KeyError"),
    ):
        with pytest.raises(ValueError, match=message):
            ErrorLibrary.from_json(damaged, widths)
    with pytest.raises(ValueError, match="no curve of 99 channels"):
        ErrorLibrary.from_json(stored, {name: 99})


def test_a_known_order_has_a_curve_of_its_own(prunable: Prunable, measured: Moments) -> None:
    best = error_library(prunable.model, prunable.searchable, measured)
    found = {name: curve.order for name, curve in best.curves.items() if curve.order is not None}
    again = error_library(prunable.model, prunable.searchable, measured, orders=found)
    reverse = {name: order[::-1] for name, order in found.items()}
    worst = error_library(prunable.model, prunable.searchable, measured, orders=reverse)
    for name, curve in best.curves.items():
        np.testing.assert_allclose(again.curves[name].errors, curve.errors, atol=1e-9)
        np.testing.assert_array_equal(worst.curves[name].order, reverse[name])
        assert worst.curves[name].errors[-2] > curve.errors[-2]  # the first to go is the best of all


def without(measured: Moments, *layers: str) -> Moments:
    """Return moments that lack some layers, or all if none is named."""
    names = layers or tuple(measured.layers)
    left = {name: layer for name, layer in measured.layers.items() if name not in names}
    return Moments(left, dict.fromkeys(names, "too large"), measured.images)


def test_readers_without_moments_count_as_the_others_do_and_are_listed(
    prunable: Prunable, measured: Moments
) -> None:
    whole = error_library(prunable.model, prunable.searchable, measured).curves
    part = error_library(
        prunable.model, prunable.searchable, without(measured, "first.0.weight", "second.0.weight")
    )
    assert part.estimated == {"stem.0": "first.0.weight: too large", "first.0": "second.0.weight: too large"}
    assert part.curves["stem.0"].order is not None
    assert part.curves["stem.0"].errors[0] == pytest.approx(2, abs=0.01)
    assert part.curves["first.0"].order is None
    # The head alone is measured, so its curve is used for the second convolution.
    np.testing.assert_allclose(part.curves["first.0"].errors, part.curves["stem.0"].errors / 2)
    assert not np.allclose(part.curves["first.0"].errors, whole["first.0"].errors)


def test_without_any_moments_curves_are_squares(prunable: Prunable, measured: Moments) -> None:
    library = error_library(prunable.model, prunable.searchable, without(measured))
    np.testing.assert_allclose(library.curves["first.0"].errors, (1 - np.arange(7) / 6) ** 2)
    np.testing.assert_allclose(library.curves["stem.0"].errors, 2 * (1 - np.arange(7) / 6) ** 2)
    unread = error_library(prunable.model, prunable.searchable, Moments({}))
    assert unread.estimated == {"stem.0": UNREAD, "first.0": UNREAD}


class Grouped(nn.Module):
    """A convolution of two groups, and one that reads two concatenated layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.split = nn.Conv2d(8, 8, 1, groups=2)
        self.other = nn.Conv2d(3, 4, 1)
        self.head = nn.Conv2d(12, 5, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [n, 5, h, w]."""
        split = torch.relu(self.split(torch.relu(self.stem(inputs))))
        logits: Tensor = self.head(torch.cat([split, torch.relu(self.other(inputs))], dim=1))
        return logits


def test_a_layer_counts_once_whatever_its_groups_and_for_its_part_of_what_it_reads() -> None:
    prunable = traced(trained_like(Grouped()))
    measured = moments(prunable, [images()], positions=POSITIONS)
    curves = error_library(prunable.model, prunable.searchable, measured).curves
    assert curves["stem"].errors[0] == pytest.approx(1, abs=0.01)
    without_head = error_library(prunable.model, prunable.searchable, without(measured, "head.weight"))
    # Only the layer of two groups is measured, and it counts as one reader.
    np.testing.assert_allclose(without_head.curves["other"].errors, curves["stem"].errors)
    layer = measured.layers["head.weight"]
    weight = prunable.model.get_parameter("head.weight").detach().flatten(1)
    total = float(((weight @ layer.covariance[0]) * weight).sum())
    part = layer.covariance[0][8:, 8:]
    assert curves["other"].errors[0] == pytest.approx(
        float(((weight[:, 8:] @ part) * weight[:, 8:]).sum()) / total, rel=0.01
    )


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated", "ignore:.*does not match num_features")
@pytest.mark.parametrize("name", ONE_INPUT)
def test_every_group_of_every_net_has_a_curve(name: str) -> None:
    """Groups that no measured layer reads have one too, and it says so."""
    prunable, batch = tricky(name)
    library = error_library(prunable.model, prunable.searchable, moments(prunable, [batch]))
    assert set(library.curves) == {group.name for group in prunable.searchable}
    for group in prunable.searchable:
        curve = library.curves[group.name]
        assert curve.width == group.width
        assert np.isfinite(curve.errors).all()
        assert (np.diff(curve.errors) <= 0).all()
        assert curve.errors[-1] == 0
        assert curve.errors[0] > 0
        if curve.order is not None:
            assert sorted(curve.order.tolist()) == list(range(group.width))
        else:
            assert curve.estimate
