"""The last layers of models, as the graph shows them, and checkpoints for another number of classes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import CheckpointError, ConfigError
from autoprune.zoo import find_heads, load_checkpoint, make_model, replace_heads


class Net(nn.Module):
    """A stem, and a named way from it to the outputs."""

    def __init__(self, way: Callable[[Any, Tensor], Any], **layers: nn.Module) -> None:
        super().__init__()
        self.stem, self.way = nn.Conv2d(3, 6, 1), way
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> object:
        return self.way(self, self.stem(x).relu())


def pooled_convolution(classes: int) -> Net:
    return Net(lambda net, x: net.last(x).relu().mean((2, 3)), last=nn.Conv2d(6, classes, 1))


def two_averaged(classes: int) -> Net:
    return Net(
        lambda net, x: (net.one(x.mean((2, 3))) + net.two(x.amax((2, 3)))) / 2,
        one=nn.Linear(6, classes),
        two=nn.Linear(6, classes, bias=False),
    )


def auxiliary(classes: int) -> Net:
    """A net with a second output in training mode alone."""

    def way(net: Any, x: Tensor) -> Any:
        main = net.main(x.mean((2, 3)))
        return (main, net.side(x.amax((2, 3)))) if net.training else main

    return Net(way, main=nn.Linear(6, classes), side=nn.Linear(6, classes))


CASES: dict[Callable[[int], Net], tuple[str, ...]] = {
    pooled_convolution: ("last",),
    two_averaged: ("one", "two"),
    auxiliary: ("main", "side"),
}
IMAGE = torch.zeros(1, 3, 4, 4)


@pytest.mark.parametrize("make", list(CASES))
def test_the_graph_shows_the_last_layers(make: Callable[[int], Net]) -> None:
    model = make(9).eval()
    before = copy.deepcopy(model.state_dict())
    assert set(replace_heads(model, IMAGE, classes=4)) == set(CASES[make])
    outputs = model(torch.rand(2, 3, 4, 4))
    assert outputs.shape == (2, 4)
    assert outputs.isfinite().all()
    after = model.state_dict()
    kept = [name for name in before if before[name].shape == after[name].shape]
    assert kept == ["stem.weight", "stem.bias"]
    assert all(torch.equal(before[name], after[name]) for name in kept)


@pytest.mark.parametrize("make", list(CASES))
def test_a_checkpoint_for_other_classes_gives_all_other_layers(
    make: Callable[[int], Net], tmp_path: Path
) -> None:
    theirs, model = make(9), make(4).eval()
    torch.save(theirs.state_dict(), tmp_path / "nine.pt")
    fresh = copy.deepcopy(model.state_dict())
    with pytest.raises(CheckpointError, match=r"is for 9 classes instead of 4: model\.new_head = true"):
        load_checkpoint(model, tmp_path / "nine.pt")
    kept = load_checkpoint(model, tmp_path / "nine.pt", lambda: find_heads(model, IMAGE))
    assert set(kept) == set(CASES[make])
    for name, tensor in model.state_dict().items():
        same = theirs.state_dict() if name.startswith("stem") else fresh
        assert torch.equal(tensor, same[name])


def test_a_checkpoint_that_fits_is_loaded_whole(tmp_path: Path) -> None:
    theirs: Any = pooled_convolution(4)
    model: Any = pooled_convolution(4).eval()
    torch.save(theirs.state_dict(), tmp_path / "four.pt")
    assert load_checkpoint(model, tmp_path / "four.pt", lambda: find_heads(model, IMAGE)) == ()
    assert torch.equal(model.last.weight, theirs.last.weight)


def test_another_layer_of_another_shape_is_still_refused(tmp_path: Path) -> None:
    theirs, model = pooled_convolution(9), pooled_convolution(4).eval()
    theirs.stem = nn.Conv2d(1, 6, 1)
    torch.save(theirs.state_dict(), tmp_path / "grey.pt")
    with pytest.raises(CheckpointError, match=r"stem\.weight is \(6, 1, 1, 1\), but \(6, 3, 1"):
        load_checkpoint(model, tmp_path / "grey.pt", lambda: find_heads(model, IMAGE))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (
            Net(
                lambda net, x: net.norm(net.last(x)),
                last=nn.Conv2d(6, 9, 1),
                norm=nn.BatchNorm2d(9),
            ),
            r"new_head: norm \(BatchNorm2d\) takes part in the output of Net",
        ),
        (
            Net(lambda net, x: net.last(x.mean((2, 3)))[:, :5], last=nn.Linear(6, 9)),
            r"last \(Linear\) takes part in the output",
        ),
    ],
)
def test_a_model_without_a_last_layer_of_its_own_is_refused(model: Net, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        find_heads(model.eval(), IMAGE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "heads"),
    [
        ("resnet20", 1),
        ("squeezenet1_1", 1),
        ("googlenet", 3),
        ("mobilenet_v3_small", 1),
        ("timm/deit_tiny_distilled_patch16_224", 2),
        ("timm/mobilenetv3_small_050", 1),
    ],
)
def test_models_of_the_zoo_torchvision_and_timm(name: str, heads: int, tmp_path: Path) -> None:
    if name.startswith("timm/"):
        pytest.importorskip("timm")
    image = torch.zeros(1, 3, 224, 224)
    theirs, model = make_model(name, 11), make_model(name, 4).eval()
    torch.save(theirs.state_dict(), tmp_path / "eleven.pt")
    kept = load_checkpoint(model, tmp_path / "eleven.pt", lambda: find_heads(model, image))
    assert len(kept) == heads
    assert model(image).shape == (1, 4)
    shapes = {name: tensor.shape for name, tensor in theirs.state_dict().items()}
    changed = {each for each, tensor in model.state_dict().items() if tensor.shape != shapes[each]}
    assert changed == {f"{head}.{leaf}" for head in kept for leaf in ("weight", "bias")}
