"""Tiny residual nets, each with the blocks that a plan may drop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from tests.models import image


@dataclass(frozen=True)
class BlockCase:
    """A net, its inputs, and its droppable blocks as {name: (groups inside, paths of replaced modules)}."""

    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...]
    blocks: dict[str, tuple[tuple[str, ...], tuple[str, ...]]]


class Net(nn.Module):
    """A stem, some blocks and a head."""

    def __init__(self, *blocks: nn.Module, stem: nn.Module | None = None, width: int = 8) -> None:
        super().__init__()
        self.stem = stem or nn.Conv2d(3, 8, 3, padding=1)
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x))
        return self.head(x.flatten(2).mean(2) if x.ndim == 4 else x.mean(1))  # type: ignore[no-any-return]  # modules return Any


class Basic(nn.Module):
    """A post-activation block with a sum in place, and a projection if the width or the stride changes."""

    def __init__(self, inputs: int = 8, outputs: int = 8, stride: int = 1) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, 6, 3, stride, 1, bias=False), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        plain = stride == 1 and inputs == outputs
        self.project = None if plain else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += x if self.project is None else self.project(x)
        return self.relu(y)  # type: ignore[no-any-return]  # modules return Any


class PreActivation(nn.Module):
    """BatchNorm and a shared in-place ReLU before each layer."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1)
        self.bn2, self.conv2 = nn.BatchNorm2d(6), nn.Conv2d(6, 8, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(self.relu(self.bn1(x)))
        return x + self.conv2(self.relu(self.bn2(y)))  # type: ignore[no-any-return]  # modules return Any


class Inverted(nn.Module):
    """An inverted residual: one Sequential is the branch, and the sum is in place on its result."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(
            nn.Conv2d(8, 12, 1),
            nn.BatchNorm2d(12),
            nn.Hardswish(inplace=True),
            nn.Conv2d(12, 12, 3, padding=1, groups=12),
            nn.Conv2d(12, 8, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.block(x)
        y += x
        return y  # type: ignore[no-any-return]  # modules return Any


class Encoder(nn.Module):
    """A block of a ViT: attention that returns a tuple, then an MLP."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1, self.ln_2, self.dropout = nn.LayerNorm(8), nn.LayerNorm(8), nn.Dropout(0.1)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))

    def forward(self, x: Tensor) -> Tensor:
        y = self.ln_1(x)
        y, _ = self.attention(y, y, y, need_weights=False)
        x = x + self.dropout(y)
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]  # modules return Any


class StochasticDepth(nn.Module):
    """Drops whole samples, in train mode alone, as a module without parameters."""

    def forward(self, x: Tensor) -> Tensor:
        return x * (torch.rand(x.shape[0], 1, 1, 1) < 0.8) if self.training else x


class Next(nn.Module):
    """A block of a ConvNeXt: a functional layer scale behind a permuted branch."""

    def __init__(self, *, deep: bool) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)
        self.scale = nn.Parameter(torch.full((8, 1, 1), 0.1))
        self.depth = StochasticDepth() if deep else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x).permute(0, 2, 3, 1)
        y = self.down(functional.gelu(self.up(self.norm(y)))).permute(0, 3, 1, 2)
        y = y * self.scale
        return x + (y if self.depth is None else self.depth(y))  # type: ignore[no-any-return]  # as above


class Called(nn.Module):
    """One block that runs twice."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(x))  # type: ignore[no-any-return]  # modules return Any


class ReadElsewhere(nn.Module):
    """Not droppable: the result of the branch is read a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.branch = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.branch(x)
        return (x + y) * y.sigmoid()  # type: ignore[no-any-return]  # modules return Any


class Unfit(nn.Module):
    """Mostly not droppable, for a reason that `how` names."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv, self.act = nn.Conv2d(8, 8, 1), nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "functional":  # the layer is computed in the block's own code
            return x + functional.conv2d(x, self.conv.weight)
        if self.how == "not zero":  # the code makes something else of a zero
            return x + self.conv(x).sigmoid()  # type: ignore[no-any-return]  # modules return Any
        if self.how == "in place":  # the shortcut is written to before the branch begins, so this one fits
            return x + self.conv(self.act(x))  # type: ignore[no-any-return]  # modules return Any
        if self.how == "train mode":  # the branch has a second reader in train mode
            y = self.conv(x)
            return x + y + (y.mean() if self.training else 0.0)  # type: ignore[no-any-return]  # as above
        return self.conv(x)  # type: ignore[no-any-return]  # modules return Any


def lending() -> nn.Module:
    """A net that holds the first layer of its block too."""
    block = Inverted()
    net = Net(block)
    net.lent = block.block[0]
    return net


class Lent(nn.Module):
    """A block whose two parts hold the same layer."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(8, 8, 1)
        self.first, self.second = nn.Sequential(shared, nn.ReLU()), nn.Sequential(shared, nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(self.first(x))  # type: ignore[no-any-return]  # modules return Any


def tokens() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 8, 2, 2), nn.Flatten(2), _Transpose())


class _Transpose(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def _basic(place: int) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    path = f"blocks.{place}"
    replaced = tuple(f"{path}.{name}" for name in ("conv1", "bn1", "conv2", "bn2"))
    return {f"{path}:branch": ((f"{path}.conv1",), replaced)}


BLOCK_CASES: dict[str, BlockCase] = {
    "basic": BlockCase(lambda: Net(Basic(), Basic()), image(), _basic(0) | _basic(1)),
    "projection": BlockCase(lambda: Net(Basic(8, 10), width=10), image(), _basic(0)),
    "stride": BlockCase(lambda: Net(Basic(8, 8, 2), Basic()), image(), _basic(1)),
    "pre_activation": BlockCase(
        lambda: Net(PreActivation()),
        image(),
        {
            "blocks.0:branch": (
                ("blocks.0.conv1",),
                tuple(f"blocks.0.{name}" for name in ("bn1", "conv1", "bn2", "relu", "conv2")),
            )
        },
    ),
    "inverted": BlockCase(
        lambda: Net(Inverted()),
        image(),
        {"blocks.0.block:branch": (("blocks.0.block.0",), ("blocks.0.block",))},
    ),
    "encoder": BlockCase(
        lambda: Net(Encoder(), stem=tokens()),
        image(),
        {
            "blocks.0.attention:branch": (
                (),
                ("blocks.0.ln_1", "blocks.0.attention", "blocks.0.dropout"),
            ),
            "blocks.0.mlp:branch": (("blocks.0.mlp.0",), ("blocks.0.ln_2", "blocks.0.mlp")),
        },
    ),
    "next": BlockCase(
        lambda: Net(Next(deep=False)),
        image(),
        {
            "blocks.0:branch": (
                ("blocks.0.up",),
                ("blocks.0.conv", "blocks.0.norm", "blocks.0.up", "blocks.0.down"),
            )
        },
    ),
    "deep_next": BlockCase(
        lambda: Net(Next(deep=True)),
        image(),
        {
            "blocks.0:branch": (
                ("blocks.0.up",),
                ("blocks.0.conv", "blocks.0.norm", "blocks.0.up", "blocks.0.down", "blocks.0.depth"),
            )
        },
    ),
    "twice": BlockCase(
        lambda: Net(Called(Inverted())),
        image(),
        {"blocks.0.block.block:branch": (("blocks.0.block.block.0",), ("blocks.0.block.block",))},
    ),
    "lending": BlockCase(
        lending,
        image(),
        {
            "blocks.0.block:branch": (
                ("blocks.0.block.0",),
                ("blocks.0.block.0", "lent", *(f"blocks.0.block.{place}" for place in range(1, 5))),
            )
        },
    ),
    "lent": BlockCase(
        lambda: Net(Lent()), image(), {"blocks.0:branch": ((), ("blocks.0.first", "blocks.0.second"))}
    ),
    "read_elsewhere": BlockCase(lambda: Net(ReadElsewhere()), image(), {}),
    "functional": BlockCase(lambda: Net(Unfit("functional")), image(), {}),
    "not_zero": BlockCase(lambda: Net(Unfit("not zero")), image(), {}),
    "in_place": BlockCase(
        lambda: Net(Unfit("in place")), image(), {"blocks.0.conv:branch": ((), ("blocks.0.conv",))}
    ),
    "train_mode": BlockCase(lambda: Net(Unfit("train mode")), image(), {}),
    "plain": BlockCase(lambda: Net(Unfit("plain")), image(), {}),
}
