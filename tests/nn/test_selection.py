"""Channel selection: each reader of a shared tensor narrows by its own choice, and the tensor stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import autoprune
from autoprune import export, load_pruned, rebuild, save_pruned, trace, verify
from autoprune.data import load
from autoprune.errors import TraceError
from autoprune.graph import Plan
from autoprune.nn import ChannelSelection, add_channel_selection
from autoprune.rebuilding._proof import TOLERANCE
from autoprune.zoo import make_model
from autoprune.zoo.densenet import DenseNet
from autoprune.zoo.resnet import ResNet
from tests.cost.test_formula import random_plan

IMAGE = torch.zeros(1, 3, 8, 8)


class PreActivation(nn.Module):
    """A stem and two blocks whose BatchNorms read one stream, a third behind a projection, a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(8) for _ in range(4)])
        self.inner = nn.ModuleList([nn.Conv2d(8, 6, 3, padding=1) for _ in range(3)])
        self.outer = nn.ModuleList([nn.Conv2d(6, width, 1) for width in (8, 8, 10)])
        self.projection = nn.Conv2d(8, 10, 1)
        self.norm, self.head = nn.BatchNorm2d(10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in range(2):
            x = x + self.outer[block](self.inner[block](self.norms[block](x).relu()).relu())
        hidden = self.norms[2](x).relu()  # two layers read it: one selection serves both
        x = self.projection(hidden) + self.outer[2](self.inner[2](hidden).relu())
        return self.head(self.norm(x).relu().mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


def selecting() -> nn.Module:
    torch.manual_seed(0)
    return add_channel_selection(PreActivation().eval(), IMAGE)


def test_a_selection_picks_channels_by_its_index() -> None:
    layer, images = ChannelSelection(6), torch.randn(2, 6, 3, 3)
    assert torch.equal(layer(images), images)
    layer.index = torch.tensor([1, 4])
    assert torch.equal(layer(images), images[:, [1, 4]])
    assert str(layer) == "ChannelSelection(selected=2)"


def test_layers_and_data_are_found_without_an_import_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(autoprune, "nn")
    assert autoprune.nn.ChannelSelection is ChannelSelection
    monkeypatch.delattr(autoprune, "data")
    assert autoprune.data.load is load


def test_selections_are_inserted_where_several_layers_read_one_tensor() -> None:
    model = selecting()
    places = [name for name, module in model.named_modules() if isinstance(module, ChannelSelection)]
    # The last norm is the only reader of its tensor. Two layers share the selection before norms[2].
    assert places == ["norms.0.select", "norms.1.select", "norms.2.select"]
    prunable = trace(model, IMAGE)
    free = {group.name: group.width for group in prunable.searchable}
    assert free == {
        **{f"norms.{number}": 8 for number in range(3)},
        **{f"inner.{number}": 6 for number in range(3)},
        "outer.2": 10,
    }
    assert "norms.0.select (index_select): picks positions by an index" in str(prunable.group("stem").frozen)


def test_the_copy_computes_the_same_and_the_model_is_unchanged() -> None:
    model, images = PreActivation(), torch.randn(4, 3, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = add_channel_selection(model, IMAGE)
    assert torch.equal(copied.train()(images), model.train()(images))
    model.load_state_dict(before)
    assert set(copied.state_dict()) - set(before) == {f"norms.{number}.select.index" for number in range(3)}


@pytest.mark.parametrize("seed", range(3))
def test_rebuilt_equals_masked_reference_and_costs_what_was_predicted(seed: int) -> None:
    prunable = trace(selecting(), IMAGE)
    plan = random_plan(prunable, seed)
    small = rebuild(prunable, plan)
    assert verify(prunable, plan, small, seed=seed) <= TOLERANCE
    with FlopCounterMode(display=False) as counter:
        small.to("meta")(IMAGE.to("meta"))
    cost = prunable.cost(plan.widths)
    assert cost.macs == counter.get_total_flops() // 2
    assert cost.params == sum(parameter.numel() for parameter in small.parameters())


def test_each_reader_keeps_its_own_subset_of_the_stream() -> None:
    prunable = trace(selecting(), IMAGE)
    plan = Plan({"norms.0": np.array([1, 5]), "norms.1": np.array([0, 2, 7])})
    small = rebuild(prunable, plan)
    shapes = {name: tuple(tensor.shape) for name, tensor in small.state_dict().items()}
    indices = [small.get_buffer(f"norms.{number}.select.index").tolist() for number in range(3)]
    assert indices == [[1, 5], [0, 2, 7], list(range(8))]
    assert [shapes[f"norms.{number}.weight"] for number in range(3)] == [(2,), (3,), (8,)]
    assert [shapes[f"inner.{number}.weight"][1] for number in range(3)] == [2, 3, 8]
    assert shapes["stem.weight"][0] == 8
    whole = rebuild(prunable, Plan({}))
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(whole(images), prunable.model(images))


def test_saved_and_exported_models_compute_the_same(tmp_path: Path) -> None:
    prunable = trace(selecting(), IMAGE)
    plan = random_plan(prunable, 0)
    small, images = rebuild(prunable, plan), torch.randn(2, 3, 8, 8)
    save_pruned(small, plan, tmp_path / "small")
    loaded = load_pruned(tmp_path / "small", selecting)
    assert torch.equal(loaded(images), small(images))
    for form in ("onnx", "pt2"):
        assert export(loaded, tmp_path / f"model.{form}", format=form).max_difference < 1e-5


@pytest.mark.parametrize(
    ("make", "count"),
    [
        # Four layers read the stream of the first stage. A block and the head read that of the second.
        (lambda: ResNet(2, (6, 8), classes=5, in_channels=3), 6),
        # Every BatchNorm of a block, the transitions and the head read the outputs of the layers before.
        (lambda: DenseNet(2, 4, classes=5, in_channels=3), 9),
    ],
)
def test_selections_in_residual_and_dense_nets(make: Callable[[], nn.Module], count: int) -> None:
    model = add_channel_selection(make(), IMAGE)
    assert sum(isinstance(module, ChannelSelection) for module in model.modules()) == count
    prunable = trace(model, IMAGE)
    plan = random_plan(prunable, 0)
    assert verify(prunable, plan, rebuild(prunable, plan)) <= TOLERANCE


def test_a_model_without_a_shared_tensor_is_refused() -> None:
    with pytest.raises(TraceError, match=r"no two layers of VGG read the same channels, .* as it is"):
        add_channel_selection(make_model("vgg16_bn", 10), torch.zeros(1, 3, 32, 32))
