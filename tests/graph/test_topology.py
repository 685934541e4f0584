"""Topologies: a planted structure is found under any names, widths and kernel sizes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import autoprune
from autoprune.graph.topology import topologies

KINDS = {"plain": ("p1", "p2", "p3"), "thick": ("t1", "t2"), "gated": ("g1", "g2")}
"""{kind: names of its blocks}."""


class Inner(nn.Module):
    """A block of a kind: its first layer gives the inner width, which is the group that it plants."""

    def __init__(self, kind: str, width: int, kernel: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.first = nn.Conv2d(8, width, kernel, padding=kernel // 2)
        self.norm, self.activation = nn.BatchNorm2d(width), activation()
        # Depthwise, and a gate that multiplies the map by a function of its mean.
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width) if kind == "thick" else None
        self.gate = nn.Conv2d(width, width, 1) if kind == "gated" else None
        self.last = nn.Conv2d(width, 8, 1)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.activation(self.norm(self.first(inputs)))
        hidden = hidden if self.depthwise is None else self.depthwise(hidden)
        hidden = (
            hidden if self.gate is None else hidden * self.gate(hidden.mean((2, 3), keepdim=True)).sigmoid()
        )
        return inputs + self.last(hidden)  # type: ignore[no-any-return]  # modules return Any


def make_net(order: tuple[str, ...]) -> nn.Module:
    kind_of = {name: kind for kind, names in KINDS.items() for name in names}
    blocks = {
        name: Inner(kind_of[name], 4 + 2 * place, 1 + 2 * (place % 2), (nn.ReLU, nn.SiLU)[place % 2])
        for place, name in enumerate(order)
    }
    net = nn.Sequential(nn.Conv2d(3, 8, 1), *blocks.values(), nn.Conv2d(8, 5, 1))
    return net.eval()


def test_groups_of_one_planted_kind_have_one_topology() -> None:
    order = ("p1", "t1", "g1", "p2", "g2", "p3", "t2")
    found = topologies(autoprune.trace(make_net(order), torch.zeros(1, 3, 8, 8)))
    place = {name: found[f"{place}.first"] for place, name in enumerate(order, start=1)}
    numbers = {kind: {place[name] for name in names} for kind, names in KINDS.items()}
    assert [len(each) for each in numbers.values()] == [1, 1, 1]
    assert len(set.union(*numbers.values(), {found["0"]})) == 4, "no two kinds, nor the stream, are alike"


def test_a_reader_more_is_another_topology() -> None:
    class Twice(nn.Module):
        """Two streams of one kind, of which the second has two readers."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 6, 1)
            self.heads = nn.ModuleList(nn.Conv2d(width, 5, 1) for width in (4, 6, 6))

        def forward(self, x: Tensor) -> Tensor:
            a, b = self.a(x).relu(), self.b(x).relu()
            first, second, third = self.heads
            return first(a) + second(b) + third(b)  # type: ignore[no-any-return]  # modules return Any

    found = topologies(autoprune.trace(Twice().eval(), torch.zeros(1, 3, 4, 4)))
    assert found["a"] != found["b"]
