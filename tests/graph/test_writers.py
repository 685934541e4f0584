"""Writers of groups, stages by map size, and the layer that starts a shortcut."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import autoprune
from autoprune.graph import Prunable
from autoprune.graph.writers import map_stages, shortcuts, writers
from autoprune.zoo import make_model
from tests import models


@pytest.fixture(scope="module")
def resnet() -> Prunable:
    return autoprune.trace(make_model("resnet20", classes=4, in_channels=1), torch.zeros(1, 1, 16, 16))


class Late(nn.Module):
    """Two convolutions, the second of which is declared first."""

    def __init__(self) -> None:
        super().__init__()
        self.second, self.first = nn.Conv2d(4, 6, 3, stride=2), nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.second(self.first(x)).mean((2, 3)))  # type: ignore[no-any-return]


def test_groups_come_in_the_order_of_execution_not_of_declaration() -> None:
    found = writers(autoprune.trace(Late(), torch.zeros(1, 3, 9, 9)))
    order = [name for name, layers in found.items() if layers]
    assert order == ["first", "second", "head"]
    assert [found[name][0].depth for name in order] == [1, 2, 3]
    assert [found[name][0].map_size for name in order] == [(9, 9), (4, 4), ()]


def test_a_projection_starts_the_shortcut_of_its_stage_and_the_stem_that_of_the_first(
    resnet: Prunable,
) -> None:
    assert shortcuts(resnet) == {
        "conv1": ("conv1.weight",),
        "layer2.0.conv2": ("layer2.0.shortcut.0.weight",),
        "layer3.0.conv2": ("layer3.0.shortcut.0.weight",),
    }


def test_gates_and_depthwise_layers_start_no_shortcut() -> None:
    for case in (models.SqueezeExcite, models.Depthwise):
        net = case()
        assert shortcuts(autoprune.trace(net, torch.zeros(1, 3, 8, 8))) == {}


def test_a_depthwise_convolution_writes_no_channels() -> None:
    net = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 2, 1))
    found = writers(autoprune.trace(net, torch.zeros(1, 3, 8, 8)))
    assert [layer.weight for layer in found["0"]] == ["0.weight"]


def test_a_weight_under_a_parametrization_writes_its_channels() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 6, 1))
    found = writers(autoprune.trace(nn.Sequential(normed, nn.Conv2d(6, 2, 1)), torch.zeros(1, 3, 8, 8)))
    assert "0.parametrizations.weight.original1" in [layer.weight for layer in found["0"]]


def test_stages_share_a_map_size(resnet: Prunable) -> None:
    found = map_stages(resnet)
    assert list(found) == [(16, 16), (8, 8), (4, 4)]
    assert found[(8, 8)] == ("layer2.0.conv1", "layer2.0.conv2", "layer2.1.conv1", "layer2.2.conv1")
    assert sum(map(len, found.values())) == len(resnet.searchable)
