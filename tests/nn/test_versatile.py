"""Versatile convolutions equal plain ones with explicit filters, and narrow by whole primary filters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from autoprune import export, load_pruned, make_plan, rebuild, save_pruned, trace, verify
from autoprune.errors import ConfigError
from autoprune.graph import Plan
from autoprune.nn import VersatileConv2d
from autoprune.rebuilding._proof import TOLERANCE
from tests.cost.test_formula import random_plan

IMAGE = torch.zeros(1, 3, 9, 9)
MODES: dict[str, dict[str, Any]] = {
    "spatial": {},
    "channels": {"delta": 4, "step": 2, "spatial": False},
    "both": {"delta": 2},
    "both, over the input": {"delta": 2, "windows": "input"},
    "more windows than channels in each": {"delta": 10, "step": 2},
}


def explicit_filters(layer: VersatileConv2d) -> Tensor:
    """Write out the filter of each output, by the article's order: crop, window, primary filter."""
    filters = []
    height, width = layer.weight.shape[2:]
    for crop in range((min(height, width) + 1) // 2 if layer.spatial else 1):
        for first in range(0, layer.delta + 1, layer.step):
            for primary in layer.weight.detach():
                dense = torch.zeros(layer.in_channels, height, width)
                for channel in range(first, first + layer.in_channels - layer.delta):
                    own = channel - first if layer.windows == "input" else channel
                    for row in range(crop, height - crop):
                        for column in range(crop, width - crop):
                            dense[channel, row, column] = primary[own, row, column]
                filters.append(dense)
    return torch.stack(filters)


def net(mode: str = "spatial") -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 12, 3, padding=1),
        nn.ReLU(),
        VersatileConv2d(12, 48, 3, stride=2, padding=1, **MODES[mode]),
        nn.BatchNorm2d(48),
        nn.ReLU(),
        VersatileConv2d(48, 18, 5, padding=1, bias=False),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(18, 5),
    ).eval()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kernel", [3, 4, (5, 3), 1])
@pytest.mark.parametrize(
    "geometry", [{}, {"padding": 1}, {"padding": 4, "dilation": 2}, {"padding": (0, 2), "stride": (2, 1)}]
)
def test_the_layer_equals_a_convolution_with_explicit_filters(
    mode: str, kernel: int | tuple[int, int], geometry: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    layer = VersatileConv2d(12, 36, kernel, **MODES[mode], **geometry, bias=kernel != 4)
    images = torch.randn(2, 12, 13, 13)
    expected = functional.conv2d(images, explicit_filters(layer), layer.bias, **geometry)
    torch.testing.assert_close(layer(images), expected, rtol=1e-4, atol=1e-5)
    assert layer.out_channels == 36
    assert layer.in_channels == 12


def counted(layer: nn.Module, images: Tensor) -> int:
    with FlopCounterMode(display=False) as counter:
        layer(images)
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("mode", ["spatial", "channels", "both", "both, over the input"])
@pytest.mark.parametrize("geometry", [{"padding": 1}, {"stride": 2}, {"padding": 4, "dilation": 2}])
def test_large_layers_save_multiplications_and_small_ones_calls(mode: str, geometry: dict[str, Any]) -> None:
    torch.manual_seed(0)
    for channels, side, is_large in ((64, 24, True), (12, 5, False)):
        layer = VersatileConv2d(channels, 180, 3, **MODES[mode], **geometry)
        plain, images = nn.Conv2d(channels, 180, 3, **geometry), torch.randn(2, channels, side, side)
        expected = functional.conv2d(images, explicit_filters(layer), layer.bias, **geometry)
        torch.testing.assert_close(layer(images), expected, rtol=1e-4, atol=1e-5)
        if is_large:
            assert counted(layer, images) < 0.8 * counted(plain, images)
        else:
            assert counted(layer, images) == counted(plain, images)
        found, wanted = (
            torch.autograd.grad(each.square().sum(), layer.weight)[0]
            for each in (layer(images), layer._by_formula(images))
        )
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


class Calls(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves it untyped
    """Keeps the names of all operators that run."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.names: list[str] = []

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self.names.append(str(function))
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("mode", ["spatial", "channels", "both"])
def test_a_narrowed_layer_makes_the_calls_of_the_dense_one(mode: str) -> None:
    """A latency table reads the sizes behind the numbers of each call."""
    layers = (
        VersatileConv2d(48, 180, 3, padding=1, **MODES[mode]),
        nn.Flatten(),
        nn.Linear(180 * 24 * 24, 2),
    )
    prunable = trace(nn.Sequential(*layers).eval(), torch.zeros(2, 48, 24, 24))
    small = rebuild(prunable, make_plan(prunable, {"0": 1}))
    found = []
    for model in (prunable.model, small):
        with torch.no_grad(), Calls() as calls:
            model(torch.zeros(2, 48, 24, 24))
        found.append(calls.names)
    assert found[0] == found[1]
    assert sum("convolution" in name for name in found[0]) > 1


@pytest.mark.parametrize("mode", MODES)
def test_rebuilt_equals_masked_reference_and_costs_what_was_predicted(mode: str) -> None:
    prunable = trace(net(mode), IMAGE)
    plan = random_plan(prunable, 1)
    small = rebuild(prunable, plan)
    assert verify(prunable, plan, small) <= TOLERANCE
    with FlopCounterMode(display=False) as counter:
        small.to("meta")(IMAGE.to("meta"))
    cost = prunable.cost(plan.widths)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.params == sum(parameter.numel() for parameter in small.parameters())
    images = torch.randn(2, 3, 9, 9)
    assert torch.equal(rebuild(prunable, Plan({}))(images), prunable.model(images))


@pytest.mark.parametrize("mode", MODES)
def test_a_primary_filter_goes_with_all_its_outputs(mode: str) -> None:
    prunable = trace(net(mode), IMAGE)
    group = prunable.group("2")
    layer = prunable.model.get_submodule("2")
    assert isinstance(layer, VersatileConv2d)
    primaries = len(layer.weight)
    assert group.width == primaries
    outputs = {m.parameter: m.index for m in group.members}["3.weight"]
    assert [{position % primaries for position in row} for row in outputs.tolist()] == [
        {number} for number in range(primaries)
    ]
    # The windows count the input channels, so these stay. All other groups can be narrowed.
    frozen = [group.name for group in prunable.groups if group.frozen]
    assert frozen == (["0", "0:in", "2:in", "8"] if layer.delta else ["0:in", "8"])


@pytest.mark.parametrize("mode", ["spatial", "both"])
def test_macs_follow_the_formula(mode: str) -> None:
    """The plain convolution's MACs, times the mean of (side / k)^2 over the crops, times (c - delta) / c."""
    layer = VersatileConv2d(12, 36, 5, padding=2, **MODES[mode])
    prunable = trace(nn.Sequential(layer, nn.Flatten(), nn.Linear(36 * 81, 2)), torch.zeros(1, 12, 9, 9))
    plain = 36 * 12 * 25 * 81
    share = (1 + (3 / 5) ** 2 + (1 / 5) ** 2) / 3 * (12 - layer.delta) / 12
    assert prunable.cost().macs - 36 * 81 * 2 == round(plain * share)
    parts = 3 * (layer.delta + 1)
    assert layer.weight.numel() == 36 * 12 * 25 // parts


def test_criteria_rank_primary_filters() -> None:
    model = net()
    prunable = trace(model, IMAGE)
    weight = model.get_parameter("2.weight")
    expected = weight.detach().abs().sum(dim=(1, 2, 3)).argsort(descending=True)[:12].sort().values
    assert make_plan(prunable, 0.5, criterion="l1")["2"].tolist() == expected.tolist()


@pytest.mark.parametrize(
    "mode",
    [*(pytest.param(mode, marks=pytest.mark.slow) for mode in ("spatial", "both, over the input")), "both"],
)
def test_saved_and_exported_models_compute_the_same(mode: str, tmp_path: Path) -> None:
    prunable = trace(net(mode), IMAGE)
    plan = random_plan(prunable, 0)
    small, images = rebuild(prunable, plan), torch.randn(2, 3, 9, 9)
    save_pruned(small, plan, tmp_path / "small")
    loaded = load_pruned(tmp_path / "small", lambda: net(mode))
    assert torch.equal(loaded(images), small(images))
    for form in ("onnx", "pt2"):
        assert export(loaded, tmp_path / f"model.{form}", format=form).max_difference < 1e-5


@pytest.mark.parametrize("mode", ["spatial", "channels", "both, over the input"])
def test_it_trains_before_and_after_narrowing(mode: str) -> None:
    prunable = trace(net(mode), IMAGE)
    for model in (net(mode), rebuild(prunable, random_plan(prunable, 0))):
        model.train()
        images, targets = torch.randn(16, 3, 9, 9), torch.arange(16) % 5
        optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
        losses = []
        for _ in range(12):
            loss = functional.cross_entropy(model(images), targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives no hints
            optimizer.step()
            losses.append(loss.item())
        assert losses[-1] < losses[0] * 0.8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            (12, 32, 5, 1),
            r"got 32 output channels, expected a multiple of 6 \(3 spatial crops x 2 channel",
        ),
        ((12, 1, 3), r"expected a multiple of 2 .*\. Try 2 or 4"),
        ((12, 24, 3, 12), "got delta=12 and step=1 for 12 input channels, expected a delta below"),
        ((12, 24, 3, 3, 2), "expected a delta below the number of channels and a step that divides delta"),
        ((12, 24, 0), "got kernel_size=0, expected 1 or more"),
        ((12, 24, (3, -1)), r"got kernel_size=\(3, -1\), expected 1 or more"),
        ((12, 24, "3"), "got kernel_size='3', expected an int or a pair of ints"),
        ((12, 24, 2.5), "got kernel_size=2.5, expected an int or a pair of ints"),
        ((12, 24, (3,)), r"got kernel_size=\(3,\), expected an int or a pair of ints"),
        ((12, 24, 3, 0, 1, "2"), "got stride='2', expected an int or a pair of ints"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        VersatileConv2d(*arguments)
    assert "\n" not in str(raised.value)


def test_the_layer_prints_its_sizes() -> None:
    text = str(VersatileConv2d(12, 24, 3, 2, 2, padding=1))
    assert text.startswith("VersatileConv2d(12, 24, kernel_size=(3, 3), primaries=6, ")
    assert text.endswith("delta=2, step=2, windows='weight')")
