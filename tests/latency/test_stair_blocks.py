from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import LatencyError
from autoprune.latency import heavy_blocks
from tests.latency.nets import snapshot, unchanged_since


class Net(nn.Module):
    """Heaviest first: two equal convolutions, the linear layer; the grouped one does not count."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.first = nn.Conv2d(8, 8, (3, 1), stride=2, padding=(1, 0))
        self.one = nn.Conv2d(8, 64, 3)
        self.grouped = nn.Conv2d(64, 64, 9, groups=2)
        self.two = nn.Conv2d(8, 64, 3)
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = self.first(self.stem(images).relu())
        y = self.one(x) + self.two(x)
        return self.head(self.grouped(y).mean((2, 3)))  # type: ignore[no-any-return]  # nn.Module calls give Any


IMAGES = torch.zeros(1, 3, 32, 32)


def test_the_heaviest_kinds_of_layers_lead() -> None:
    model = Net().train()
    before = snapshot(model)
    blocks = heavy_blocks(model, IMAGES, most=9)
    assert [(block.name, block.width) for block in blocks] == [
        ("one", 64),  # with its twin: 2 x 64 x 8 x 9 x 14 x 14 MACs
        ("stem", 8),  # 8 x 3 x 9 x 32 x 32
        ("first", 8),  # 8 x 8 x 3 x 16 x 16
        ("head", 10),
    ]
    assert len(heavy_blocks(model, IMAGES, most=2)) == 2
    assert unchanged_since(model, before)
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


@pytest.mark.parametrize("width", [1, 5, 64])
def test_a_block_has_the_width_and_gives_back_the_channels_that_came_in(width: int) -> None:
    for block in heavy_blocks(Net(), IMAGES, most=9):
        model, inputs = block.make(width)
        assert isinstance(model, nn.Sequential)
        assert isinstance(inputs, Tensor)
        axis = 1 if inputs.ndim == 4 else -1
        assert model[0](inputs).shape[axis] == width
        assert model(inputs).shape[axis] == inputs.shape[axis]
        if block.name == "first":
            assert model(inputs).shape[2:] == (16, 16)


class ByKeyword(nn.Module):
    """A dilated layer with padding, one without, and one whose padding is a word, passed by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.dilated = nn.Conv2d(3, 9, 3, padding=2, dilation=2)
        self.bare = nn.Conv2d(9, 7, 5)
        self.same = nn.Conv2d(7, 5, 3, padding="same", dilation=(2, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.bare(input=self.dilated(input=images))
        return self.same(input=x)  # type: ignore[no-any-return]  # nn.Module calls give Any


def test_blocks_do_what_the_layers_do() -> None:
    model = ByKeyword()
    blocks = {block.name: block for block in heavy_blocks(model, torch.zeros(1, 3, 12, 14), most=9)}
    assert set(blocks) == {"dilated", "bare", "same"}
    for name, block in blocks.items():
        layer = model.get_submodule(name)
        made, inputs = block.make(block.width)
        assert isinstance(made, nn.Sequential)
        assert isinstance(inputs, Tensor)
        assert isinstance(layer, nn.Conv2d)
        assert isinstance(made[0], nn.Conv2d)
        made[0].load_state_dict(layer.state_dict())
        inputs = torch.randn_like(inputs)
        torch.testing.assert_close(made[0](inputs), layer(inputs))
        assert made(inputs).shape == (1, layer.in_channels, *layer(inputs).shape[2:])


def test_linear_layers_of_tokens() -> None:
    (block,) = heavy_blocks(nn.Linear(6, 12), torch.zeros(2, 5, 6))
    model, inputs = block.make(7)
    assert model(inputs).shape == (1, 5, 6)


def test_a_model_without_such_layers_is_named() -> None:
    with pytest.raises(LatencyError, match=r"ReLU: has no convolution or linear layer .* search\.divisor"):
        heavy_blocks(nn.ReLU(), IMAGES)
