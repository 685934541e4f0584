"""More tricky nets: one idea each, in the form of tests/models.py, which joins them to its CASES."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


class Between(nn.Module):
    """A first convolution, a function in the middle, a last one that reads `channels`."""

    def __init__(self, middle: Callable[[Tensor], Tensor], width: int = 8, channels: int = 8) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, width, 1), nn.Conv2d(channels, 5, 1)
        self.middle = middle

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.middle(self.first(x)))  # type: ignore[no-any-return]  # modules return Any


def shuffled(x: Tensor) -> Tensor:
    """The channel shuffle of ShuffleNet, by view and transpose."""
    batch, channels, height, width = x.shape
    return x.view(batch, 2, channels // 2, height, width).transpose(1, 2).reshape(batch, -1, height, width)


class Split(nn.Module):
    """Two halves by split: position i of both goes or stays; three parts of one axis by unbind."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fused, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(6, 12, 1), nn.Conv2d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        left, right = torch.split(x, x.shape[1] // 2, 1)
        a, b, c = self.fused(left * right).unflatten(1, (3, -1)).unbind(1)
        return self.head(a * b + c)  # type: ignore[no-any-return]  # modules return Any


class Film(nn.Module):
    """A scale and a shift per channel, computed from a vector and broadcast over the map."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.scale, self.shift = nn.Conv2d(3, 8, 1), nn.Linear(4, 8), nn.Linear(4, 8)
        self.head = nn.Conv2d(8, 5, 1)

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        x = self.conv(x)
        shift = self.shift(code)[:, :, None, None].expand(-1, -1, *x.shape[2:])
        return self.head(x * self.scale(code)[..., None, None] + shift)  # type: ignore[no-any-return]  # as above


class Dilated(nn.Module):
    """Dilated, strided and grouped convolutions in several dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Conv2d(3, 8, 3, padding=2, dilation=2)
        self.grouped = nn.Conv2d(8, 12, 3, padding=2, dilation=2, groups=4)
        self.line = nn.Conv1d(12, 6, 3, stride=2, dilation=3)
        self.deep = nn.Conv3d(6, 6, (1, 1, 3), padding="same", groups=6)
        self.back = nn.ConvTranspose1d(6, 4, 3, stride=2, dilation=2, output_padding=1)
        self.head = nn.Conv1d(4, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.line(self.grouped(self.flat(x)).flatten(2))
        x = self.deep(x[:, :, None, None])[:, :, 0, 0]
        return self.head(self.back(x))  # type: ignore[no-any-return]  # modules return Any


class InstanceNormed(nn.Module):
    """InstanceNorm with scale and running statistics, and without."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 5, 1)
        self.tracked = nn.InstanceNorm2d(8, affine=True, track_running_stats=True)
        self.plain = nn.InstanceNorm2d(6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.plain(self.b(self.tracked(self.a(x)))))  # type: ignore[no-any-return]  # as above


class Normed(nn.Module):
    """Weights that are computed from other tensors: plain, depthwise, transposed and linear."""

    def __init__(self, norm: Callable[[nn.Module], nn.Module]) -> None:
        super().__init__()
        self.conv = norm(nn.Conv2d(3, 8, 3, padding=1))
        self.deep = norm(nn.Conv2d(8, 8, 3, padding=1, groups=8))
        self.up = norm(nn.ConvTranspose2d(8, 6, 2, 2))
        self.fc = norm(nn.Linear(6, 7))
        self.head = nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.up(self.deep(self.conv(x)).relu()).mean((2, 3))
        return self.head(self.fc(x).relu())  # type: ignore[no-any-return]  # modules return Any


class Stages(nn.Module):
    """Two stages of a residual net: the second's stream begins at a shortcut of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.inner1, self.outer1 = nn.Conv2d(6, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.inner2, self.outer2 = nn.Conv2d(6, 5, 3, 2, 1), nn.Conv2d(5, 9, 3, padding=1)
        self.shortcut, self.norm = nn.Conv2d(6, 9, 1, 2), nn.BatchNorm2d(9)
        self.inner3, self.outer3 = nn.Conv2d(9, 7, 1), nn.Conv2d(7, 9, 1)
        self.head = nn.Conv2d(9, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = (x + self.outer1(self.inner1(x).relu())).relu()
        x = self.norm(self.shortcut(x)) + self.outer2(self.inner2(x).relu())
        x = x + self.outer3(self.inner3(x.relu()))
        return self.head(x)  # type: ignore[no-any-return]  # modules return Any


class OverChannels(nn.Module):
    """Softmax, cumulative sum and a subtracted mean over channels: two cross, one does not."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 7, 1), nn.Conv2d(7, 6, 1)
        self.head = nn.Conv2d(6, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).softmax(1)).cumsum(1)
        x = self.c(x)
        return self.head(x - x.mean(1, keepdim=True))  # type: ignore[no-any-return]  # modules return Any


class Bilinear(nn.Module):
    """nn.Bilinear: both inputs and its output are groups."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.both = nn.Linear(4, 6), nn.Linear(4, 7), nn.Bilinear(6, 7, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.both(self.left(x), self.right(x)).relu())  # type: ignore[no-any-return]  # as above


class Recurrent(nn.Module):
    """An LSTM over the rows of a map: the features that it reads are free, its states are not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.lstm = nn.Conv2d(3, 6, 1), nn.LSTM(6, 4, 2, bidirectional=True, batch_first=True)
        self.mix, self.head = nn.Linear(8, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.lstm(self.conv(x).flatten(2).transpose(1, 2))
        return self.head(self.mix(states).mean(1))  # type: ignore[no-any-return]  # modules return Any


class Picked(nn.Module):
    """Channels that are put in order, and picked by the order of others: both stay, others are free."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 9, 1)
        self.head = nn.Conv2d(9, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(self.b(self.a(x).topk(4, 1).values))
        return self.head(x.gather(1, x.mean((2, 3), keepdim=True).argsort(1).expand_as(x)))  # type: ignore[no-any-return]  # as above


class GlobalFilter(nn.Module):
    """A filter of complex numbers between a Fourier transform over the map and its inverse."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 5, 1)
        self.weight = nn.Parameter(torch.randn(6, 8, 5, 2))

    def forward(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(self.conv(x), norm="ortho") * torch.view_as_complex(self.weight)
        return self.head(torch.fft.irfft2(spectrum, s=x.shape[2:], norm="ortho"))  # type: ignore[no-any-return]  # as above


class GroupedQueries(nn.Module):
    """Four query heads that share two of keys and values: heads are numbers of the code, widths are free."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(5, 12), nn.Linear(5, 6), nn.Linear(5, 8)
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, _ = x.shape
        q = self.q(x).view(batch, tokens, 4, -1).transpose(1, 2)
        k, v = (layer(x).view(batch, tokens, 2, -1).transpose(1, 2) for layer in (self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v, scale=0.5, enable_gqa=True)
        return self.head(mixed.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]  # modules return Any


class Ellipsis(nn.Module):
    """A product by einsum with an ellipsis, over a parameter used without a module."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(4, 6), nn.Linear(7, 5)
        self.mix = nn.Parameter(torch.randn(7, 6))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.einsum("...i,oi->...o", self.embed(x), self.mix).relu())  # type: ignore[no-any-return]  # as above
