"""Modules that compute sizes from their own numbers can be narrowed, or the report names the reason."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.exporting import load_pruned, save_pruned
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild, verify
from autoprune.rebuilding._proof import TOLERANCE
from autoprune.tracing import trace
from tests.cost.test_formula import counted, random_plan

TOKENS = torch.zeros(1, 7, 5)


class OwnHeadWidth(nn.Module):
    """Attention that keeps the width of a head, and of all heads, as attributes."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.head_dim, self.inner = heads, width // heads, width
        self.scale = self.head_dim**-0.5
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(batch, tokens, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4)
        scores = (qkv[0] * self.scale @ qkv[1].transpose(-2, -1)).softmax(-1)
        mixed = (scores @ qkv[2]).transpose(1, 2).reshape(batch, tokens, self.inner)
        return self.out(mixed)  # type: ignore[no-any-return]  # modules return Any


class WidthOfInput(nn.Module):
    """Attention whose inner width is, in its code, that of its input."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads, self.scale = heads, (width // heads) ** -0.5
        self.q, self.kv, self.out = (
            nn.Linear(width, width),
            nn.Linear(width, 2 * width),
            nn.Linear(width, width),
        )

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q = self.q(x).reshape(b, n, self.heads, c // self.heads).transpose(1, 2)
        k, v = self.kv(x).reshape(b, n, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = ((q * self.scale @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2)
        return self.out(mixed.reshape(b, n, c))  # type: ignore[no-any-return]  # modules return Any


class WrittenOut(nn.Module):
    """Attention whose head width is a number in its code: nothing can make it follow."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 3, 8).permute(2, 0, 3, 1, 4)
        mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.out(mixed)  # type: ignore[no-any-return]  # modules return Any


class Pieces(nn.Module):
    """Cuts its channels by a list of sizes, and convolves each piece by itself."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.up, self.out = nn.Linear(width, 20), nn.Linear(20, width)
        self.sizes = [4, 4, 12]
        self.mixes = nn.ModuleList(nn.Linear(size, size) for size in self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        pieces = zip(self.mixes, self.up(x).split(self.sizes, -1), strict=True)
        return self.out(torch.cat([mix(piece) for mix, piece in pieces], -1))  # type: ignore[no-any-return]  # as above


class Halves(nn.Module):
    """Cuts into pieces of half a number, which fails first in the module that a piece enters."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.expanded = 16
        self.up, self.mix, self.out = nn.Linear(width, 16), nn.Linear(8, 8), nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.up(x).split(self.expanded // 2, -1)
        return self.out(torch.cat([first, self.mix(second)], -1))  # type: ignore[no-any-return]  # as above


class OneNumberForTwo(nn.Module):
    """Heads of their own layers: one number holds the width of queries and keys, of every head."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.key, self.value = 6, 8
        self.heads = nn.ModuleList(nn.Linear(width, 20) for _ in range(2))
        self.out = nn.Linear(16, width)

    def forward(self, x: Tensor) -> Tensor:
        mixed = []
        for head in self.heads:
            q, k, v = head(x).split([self.key, self.key, self.value], -1)
            mixed.append((q @ k.transpose(-2, -1)).softmax(-1) @ v)
        return self.out(torch.cat(mixed, -1))  # type: ignore[no-any-return]  # modules return Any


class ShapeOfScale(nn.Module):
    """A scale that is viewed in a shape kept as a tuple."""

    def __init__(self, width: int = 24) -> None:
        super().__init__()
        self.shape = (1, width)
        self.scale = nn.Parameter(torch.rand(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(self.shape)


class ShareOfInput(nn.Module):
    """Queries and keys in one layer, values in another: heads are a share of the input's width."""

    def __init__(self, width: int = 24, heads: int = 3) -> None:
        super().__init__()
        self.heads = heads
        self.qk, self.v, self.out = (nn.Linear(width, n * width) for n in (2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        q, k = self.qk(x).reshape(b, n, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        v = self.v(x).reshape(b, n, self.heads, c // self.heads).transpose(1, 2)
        mixed = ((q @ k.transpose(-2, -1)).softmax(-1) @ v).transpose(1, 2)
        return self.out(mixed.flatten(2))  # type: ignore[no-any-return]  # modules return Any


class Net(nn.Module):
    """Two residual blocks of one kind of attention."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(5, 24), nn.Linear(24, 4)
        self.blocks = nn.ModuleList(kind() for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for block in self.blocks:
            x = x + block(x)
        return self.head(x.mean(1))  # type: ignore[no-any-return]  # modules return Any


def free(prunable: Prunable) -> dict[str, int]:
    """Return the widths of the groups that can be narrowed."""
    return {group.name: group.width for group in prunable.searchable}


def numbers(prunable: Prunable) -> set[tuple[str, str]]:
    """Return which attributes of which modules follow a width."""
    return {(each.module, each.attribute) for each in prunable.followers}


def test_attributes_follow_the_heads() -> None:
    prunable = trace(Net(OwnHeadWidth), TOKENS)
    assert free(prunable) == {"embed": 24, "blocks.0.qkv": 8, "blocks.1.qkv": 8}
    assert numbers(prunable) == {(f"blocks.{i}", name) for i in (0, 1) for name in ("head_dim", "inner")}


def test_the_inner_width_follows_the_input() -> None:
    prunable = trace(Net(WidthOfInput), TOKENS)
    assert free(prunable) == {"embed": 8}
    assert prunable.followers == ()


EXPECTED: dict[type[nn.Module], tuple[dict[str, int], set[tuple[str, int | None]]]] = {
    Pieces: (
        {"up": 4, "up:2": 4, "up:3": 12, "mixes.0": 4, "mixes.1": 4, "mixes.2": 12},
        {("sizes", 0), ("sizes", 1), ("sizes", 2)},
    ),
    Halves: ({"up": 8, "mix": 8}, {("expanded", None)}),
    OneNumberForTwo: ({"heads.0": 6, "heads.0:2": 8}, {("key", None), ("value", None)}),
    ShapeOfScale: ({}, {("shape", 1)}),
}
"""{block: (its free groups except that of the embedding, (attribute, item) of its followers)}."""


@pytest.mark.parametrize("kind", EXPECTED)
def test_numbers_of_many_forms_follow(kind: type[nn.Module]) -> None:
    prunable = trace(Net(kind), TOKENS)
    widths, followed = EXPECTED[kind]
    inside = {f"blocks.{i}.{name}": width for i in (0, 1) for name, width in widths.items()}
    assert free(prunable) == {"embed": 24} | inside
    assert {(each.attribute, each.item) for each in prunable.followers} == followed


def test_heads_may_be_a_share_of_the_input() -> None:
    prunable = trace(Net(ShareOfInput), TOKENS)
    assert free(prunable) == {"embed": 8}
    assert prunable.followers == ()


def test_a_number_in_the_code_stays_and_freezes() -> None:
    prunable = trace(Net(WrittenOut), TOKENS)
    assert free(prunable) == {"embed": 24}
    assert prunable.followers == ()
    frozen = prunable.group("blocks.0.qkv").frozen
    assert frozen is not None
    assert "the narrowed model fails: shape '[1, 7, 3, 3, 8]' is invalid" in frozen


@pytest.mark.parametrize("kind", [OwnHeadWidth, WidthOfInput, WrittenOut, *EXPECTED, ShareOfInput])
@pytest.mark.parametrize("seed", range(4))
def test_rebuilt_equals_reference_and_counts(kind: type[nn.Module], seed: int) -> None:
    prunable = trace(Net(kind), TOKENS)
    plan = random_plan(prunable, seed, crossing=False)
    small = rebuild(prunable, plan)
    assert verify(prunable, plan, small) <= TOLERANCE
    cost = prunable.cost(plan.widths)
    assert (cost.macs, cost.params) == counted(small, (TOKENS,))


def test_the_dense_model_keeps_its_numbers() -> None:
    model = Net(OwnHeadWidth)
    prunable = trace(model, TOKENS)
    small = rebuild(prunable, Plan({"blocks.0.qkv": np.arange(5)}))
    for net, expected in ((model, (8, 24)), (small, (5, 15))):
        block = net.get_submodule("blocks.0")
        assert isinstance(block, OwnHeadWidth)
        assert (block.head_dim, block.inner) == expected


def test_a_saved_model_loads_with_its_numbers(tmp_path: Path) -> None:
    prunable = trace(Net(OwnHeadWidth), TOKENS)
    plan = Plan({"blocks.0.qkv": np.arange(5), "blocks.1.qkv": np.array([2])})
    small = rebuild(prunable, plan).eval()
    save_pruned(small, plan, tmp_path / "once")
    loaded = load_pruned(tmp_path / "once", lambda: Net(OwnHeadWidth))
    x = torch.rand(2, 7, 5)
    assert torch.equal(loaded(x), small(x))
    save_pruned(copy.deepcopy(loaded), plan, tmp_path / "again")
    assert torch.equal(load_pruned(tmp_path / "again", lambda: Net(OwnHeadWidth))(x), small(x))
