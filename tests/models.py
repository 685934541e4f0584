"""Tiny tricky nets, each with the channel groups that it must show."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations

from tests import topologies


@dataclass(frozen=True)
class Case:
    """A net, its inputs, and its free groups as {name: width}."""

    make: Callable[[], nn.Module]
    inputs: tuple[Tensor, ...] | dict[str, Tensor]
    free: dict[str, int]
    frozen: dict[str, str] = field(default_factory=dict)
    """{group: a part of the reason}; the rest must be free, the model's input or its output."""


def image(channels: int = 3, size: int = 8) -> tuple[Tensor, ...]:
    return (torch.zeros(1, channels, size, size),)


class Residual(nn.Module):
    """Two blocks on one stream: the stream is one group, each inner width another."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner1, self.outer1 = nn.Conv2d(8, 6, 1), nn.Conv2d(6, 8, 1)
        self.bn = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.bn(self.outer1(self.inner1(x).relu()))
        return self.head(x.mean((2, 3)))  # type: ignore[no-any-return]  # modules return Any


class Concat(nn.Module):
    """Concats of concats: each source stays a group of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(10, 8, 1)
        self.head = nn.Conv2d(18, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x).relu()
        ab = torch.cat([a, self.b(a)], 1)
        return self.head(torch.cat([ab, self.c(ab)], 1))  # type: ignore[no-any-return]  # modules return Any


class SliceOfItself(nn.Module):
    """cat([a, a[:, :4]]): the four that occur twice are a group of their own, which the number 4 freezes."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.head = nn.Conv2d(3, 10, 1), nn.Conv2d(14, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.a(x)
        return self.head(torch.cat([a, a[:, :4]], 1))  # type: ignore[no-any-return]  # modules return Any


class Flatten(nn.Module):
    """A flattened 4 x 4 map before a Linear: a channel spans 16 of its columns."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc1, self.fc2 = nn.Conv2d(3, 6, 3, 2, 1), nn.Linear(96, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(self.conv(x).flatten(1)).relu())  # type: ignore[no-any-return]  # as above


class Depthwise(nn.Module):
    """Depthwise with multiplier 2, then a grouped convolution that loses whole groups."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Conv2d(3, 6, 1)
        self.deep = nn.Conv2d(6, 12, 3, padding=1, groups=6, bias=False)
        self.norm = nn.BatchNorm2d(12)
        self.middle = nn.Conv2d(12, 16, 1)
        self.grouped = nn.Conv2d(16, 8, 3, padding=1, groups=4)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.norm(self.deep(self.up(x))))
        return self.head(self.grouped(x).relu())  # type: ignore[no-any-return]  # modules return Any


class SqueezeExcite(nn.Module):
    """A broadcast multiply by a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.excite = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        gate = self.excite(self.squeeze(functional.adaptive_avg_pool2d(x, 1)).relu()).sigmoid()
        return self.head(x * gate)  # type: ignore[no-any-return]  # modules return Any


class Attention(nn.Module):
    """nn.MultiheadAttention: its one width, 2 heads of 4, shrinks inside the heads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(5, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        mixed, _ = self.attention(x, x, x, need_weights=False)
        return self.head((x + mixed).mean(1))  # type: ignore[no-any-return]  # modules return Any


class HandAttention(nn.Module):
    """Attention by hand whose head count is a constant: heads become narrower, not fewer."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(5, 8), nn.Linear(5, 8), nn.Linear(5, 8)
        self.head = nn.Linear(8, 3)
        self.heads = 2

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        split = (layer(x).view(batch, tokens, self.heads, -1) for layer in (self.q, self.k, self.v))
        q, k, v = (part.transpose(1, 2) for part in split)
        scores = torch.matmul(q, k.transpose(-2, -1)) * 0.5
        mixed = torch.matmul(scores.softmax(-1), v).transpose(1, 2).flatten(2)
        return self.head(mixed.mean(1))  # type: ignore[no-any-return]  # modules return Any


class Twice(nn.Module):
    """One module called twice, and two layers that share a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.same, self.head = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.left, self.right = nn.Linear(4, 6, bias=False), nn.Linear(4, 6, bias=False)
        self.right.weight = self.left.weight

    def forward(self, x: Tensor) -> Tensor:
        once = self.same(self.up(x)).relu()
        mixed = self.same(once) + self.left(x) * self.right(x)
        return self.head(mixed)  # type: ignore[no-any-return]  # modules return Any


class Scaled(nn.Module):
    """A parameter used without a module, and a dict output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.aux = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1), nn.Conv2d(8, 2, 1)
        self.scale = nn.Parameter(torch.ones(8, 1, 1))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.conv(x) * self.scale
        return {"main": self.head(x), "aux": self.aux(x)}


class TwoInputs(nn.Module):
    """Keyword inputs that meet by addition: one group."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(1, 8, 1), nn.Conv2d(8, 5, 1)

    def forward(self, picture: Tensor, depth: Tensor) -> Tensor:
        return self.head(self.left(picture) + self.right(depth))  # type: ignore[no-any-return]  # as above


class Chunked(nn.Module):
    """A gate of two halves: position i of both goes or stays."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv(x).chunk(2, 1)
        return self.head(value * gate.sigmoid())  # type: ignore[no-any-return]  # modules return Any


class ConstantView(nn.Module):
    """A view with a number of channels written into the code: cannot be narrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 1), nn.Linear(64, 5)
        self.inner = nn.Conv2d(3, 6, 1)
        self.mix = nn.Conv2d(6, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.mix(self.inner(x))
        return self.head(self.conv(x[..., :4, :4]).reshape(-1, 64))  # type: ignore[no-any-return]  # as above


class HalfByNumber(nn.Module):
    """A slice at a number written into the code: the channels before it stay, those behind are free."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 1)
        self.left, self.right = nn.Conv2d(4, 6, 1), nn.Conv2d(4, 6, 1)
        self.last = nn.Conv2d(6, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(self.left(x[:, :4]) + self.right(x[:, 4:]))  # type: ignore[no-any-return]  # as above


class Renormed(nn.Module):
    """An operator without a rule: freezes what enters it, nothing else."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.inner = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1), nn.Conv2d(8, 6, 1)
        self.back = nn.Conv2d(6, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).renorm(2, 1, 1.0)
        return self.head(self.back(self.inner(x)))  # type: ignore[no-any-return]  # modules return Any


class TrainOnlyHead(nn.Module):
    """An auxiliary head that only the training graph reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head, self.aux = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 5, 1), nn.Conv2d(8, 4, 1)
        self.aux_head = nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.conv(x).relu()
        main: Tensor = self.head(x)
        if self.training:
            return main, self.aux_head(self.aux(x))
        return main


class Norms(nn.Module):
    """LayerNorm and GroupNorm cross their channels; BatchNorm and PReLU do not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.gn = nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8)
        self.conv2, self.prelu = nn.Conv2d(8, 6, 1), nn.PReLU(6)
        self.fc, self.ln, self.head = nn.Linear(6, 10), nn.LayerNorm(10), nn.Linear(10, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.prelu(self.conv2(self.gn(self.conv1(x))))
        return self.head(self.ln(self.fc(x.mean((2, 3)))))  # type: ignore[no-any-return]  # as above


class Transposed(nn.Module):
    """Transposed convolutions, plain, depthwise and grouped, behind a pixel shuffle."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 2, 2)
        self.deep = nn.ConvTranspose2d(6, 6, 2, 2, groups=6)
        self.grouped = nn.ConvTranspose2d(6, 9, 1, groups=3)
        self.fold, self.head = nn.Conv2d(9, 12, 1), nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.grouped(self.deep(self.up(self.conv(x))))
        return self.head(functional.pixel_shuffle(self.fold(x), 2))  # type: ignore[no-any-return]  # as above


CASES: dict[str, Case] = {
    "residual": Case(Residual, image(), {"stem": 8, "inner1": 6}),
    "concat": Case(Concat, image(), {"a": 4, "b": 6, "c": 8}),
    "slice_of_itself": Case(SliceOfItself, image(), {"a:2": 6}, {"a": "Invalid channel"}),
    "flatten": Case(Flatten, image(), {"conv": 6, "fc1": 7}),
    "depthwise": Case(Depthwise, image(), {"up": 6, "middle": 4}),
    "squeeze_excite": Case(SqueezeExcite, image(), {"conv": 8, "squeeze": 4}),
    "attention": Case(Attention, (torch.zeros(1, 7, 5),), {"embed": 4}),
    "hand_attention": Case(HandAttention, (torch.zeros(1, 7, 5),), {"q": 4, "v": 4}),
    "twice": Case(Twice, (torch.zeros(1, 4),), {"up": 6}),
    "scaled": Case(Scaled, image(), {"conv": 8}),
    "two_inputs": Case(TwoInputs, {"picture": image()[0], "depth": image(1)[0]}, {"left": 8}),
    "chunked": Case(Chunked, image(), {"conv": 6}),
    "constant_view": Case(ConstantView, image(), {"inner": 6}, {"conv": "64"}),
    "half_by_number": Case(HalfByNumber, image(), {"conv:2": 4, "left": 6}, {"conv": "Invalid channel"}),
    "renormed": Case(Renormed, image(), {"inner": 6, "back": 8}, {"conv": "renorm", "inner:in": "renorm"}),
    "train_only_head": Case(TrainOnlyHead, image(), {"conv": 8, "aux": 4}),
    "norms": Case(Norms, image(), {"conv1": 4, "conv2": 6, "fc": 10}),
    "transposed": Case(Transposed, image(), {"conv": 8, "up": 3, "fold": 3}),
    "shuffled": Case(lambda: topologies.Between(topologies.shuffled), image(), {"first": 4}),
    "unshuffled": Case(
        lambda: topologies.Between(lambda x: functional.pixel_unshuffle(x, 2), 8, 32), image(), {"first": 8}
    ),
    "gated": Case(lambda: topologies.Between(lambda x: functional.glu(x, 1), 8, 4), image(), {"first": 4}),
    "split": Case(topologies.Split, image(), {"conv": 6, "fused": 4}),
    "film": Case(topologies.Film, {"x": image()[0], "code": torch.zeros(1, 4)}, {"conv": 8}),
    "dilated": Case(topologies.Dilated, image(), {"flat": 4, "line": 6, "back": 4}),
    "instance_norm": Case(topologies.InstanceNormed, image(), {"a": 8, "b": 6}),
    "stages": Case(
        topologies.Stages, image(), {"stem": 6, "inner1": 4, "inner2": 5, "outer2": 9, "inner3": 7}
    ),
    "over_channels": Case(topologies.OverChannels, image(), {"a": 8, "b": 7, "c": 6}),
    "bilinear": Case(topologies.Bilinear, (torch.zeros(1, 4),), {"left": 6, "right": 7, "both": 8}),
    "recurrent": Case(
        topologies.Recurrent,
        image(size=2),
        {"conv": 6, "mix": 7},
        {"mix:in": "the states of lstm"}
        | dict.fromkeys(("lstm", "lstm:in", *(f"lstm:in:{n}" for n in range(2, 7))), "share one width"),
    ),
    "picked": Case(topologies.Picked, image(), {"b": 6}, {"a": "topk", "c": "argsort"}),
    "global_filter": Case(topologies.GlobalFilter, image(), {"weight": 6}),
    "grouped_queries": Case(topologies.GroupedQueries, (torch.zeros(1, 7, 5),), {"q": 3, "v": 4}),
    "ellipsis": Case(topologies.Ellipsis, (torch.zeros(1, 3, 4),), {"mix": 7, "embed": 6}),
    **{
        name: Case(partial(topologies.Normed, norm), image(), {"conv": 8, "up": 6, "fc": 7})
        for name, norm in (
            ("weight_norm", parametrizations.weight_norm),
            ("spectral_norm", parametrizations.spectral_norm),
            ("weight_norm_by_hook", nn.utils.weight_norm),
            ("spectral_norm_by_hook", nn.utils.spectral_norm),
        )
    },
}
