"""Plain convolutions become versatile ones, and their primary filters fit the dense filters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.nn import VersatileConv2d, to_versatile
from autoprune.zoo import make_model
from tests.nn.test_versatile import MODES, explicit_filters


@pytest.mark.parametrize("mode", MODES)
def test_primary_filters_are_the_least_squares_fit(mode: str) -> None:
    torch.manual_seed(0)
    dense = nn.Conv2d(12, 36, 3, padding="same")
    layer = to_versatile(dense, **MODES[mode])
    assert isinstance(layer, VersatileConv2d)
    distance = (explicit_filters(layer) - dense.weight).square().sum()
    # The distance is a sum of squares, so every step away from its minimum makes it larger.
    fitted = layer.weight.detach().clone()
    for _ in range(5):
        layer.weight.data = fitted + 0.01 * torch.randn_like(fitted)
        assert (explicit_filters(layer) - dense.weight).square().sum() > distance


@pytest.mark.parametrize("mode", MODES)
def test_filters_that_are_versatile_already_are_found_again(mode: str) -> None:
    torch.manual_seed(0)
    source = VersatileConv2d(12, 36, 3, padding=1, stride=2, **MODES[mode])
    dense = nn.Conv2d(12, 36, 3, padding=1, stride=2)
    dense.load_state_dict({"weight": explicit_filters(source), "bias": source.state_dict()["bias"]})
    found = to_versatile(dense, **MODES[mode])
    torch.testing.assert_close(found.get_parameter("weight"), source.weight)
    images = torch.randn(2, 12, 8, 8)
    torch.testing.assert_close(found(images), dense(images), rtol=1e-4, atol=1e-5)


def test_a_whole_net_is_converted_and_stays_as_it_was() -> None:
    model = make_model("digits_resnet", 10, 1).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    converted = to_versatile(model)
    kinds = {
        name: type(module) for name, module in converted.named_modules() if name.endswith(("conv1", "0"))
    }
    assert kinds["layer1.0.conv1"] is VersatileConv2d
    assert kinds["layer2.0.shortcut.0"] is nn.Conv2d  # a 1x1 kernel has one crop
    assert not any(module.training for module in converted.modules())
    assert converted(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    one = to_versatile(model, layers=["layer1.0.conv1"], delta=4, step=4)
    assert [name for name, module in one.named_modules() if isinstance(module, VersatileConv2d)] == [
        "layer1.0.conv1"
    ]


def test_a_shared_convolution_stays_shared() -> None:
    shared = nn.Conv2d(4, 4, 3, padding=1)
    converted = to_versatile(nn.ModuleDict({"a": shared, "b": nn.Sequential(shared)}))
    assert converted.get_submodule("a") is converted.get_submodule("b.0")


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (nn.Conv2d(4, 6, 7), {}, "got 6 output channels, expected a multiple of 4"),
        (nn.Sequential(nn.Linear(4, 6)), {}, "no layer of Sequential can be replaced"),
        (nn.Sequential(nn.Linear(4, 6)), {"layers": ["0"]}, "0 is a Linear, expected a Conv2d"),
        (nn.Sequential(nn.Conv2d(4, 6, 3)), {"layers": ["1"]}, "the model has no layer 1"),
        (nn.Sequential(nn.Conv2d(4, 6, 1)), {"layers": ["0"]}, "0 would have as many filters as before"),
        (nn.Sequential(nn.Conv2d(4, 6, 3)), {"layers": ["0"], "delta": 4}, "expected more than delta=4"),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), {"layers": ["0"]}, "0 is grouped or does not pad"),
        (
            nn.Sequential(nn.Conv2d(4, 4, 4, padding="same")),
            {},
            "0: .*of an even kernel differs from side to side",
        ),
        (nn.Sequential(nn.Conv2d(4, 4, 4)), {"step": 0}, "got delta=0 and step=0 for 4 input channels"),
    ],
)
def test_what_cannot_be_converted_is_refused(model: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as raised:
        to_versatile(model, **options)
    assert "\n" not in str(raised.value)
