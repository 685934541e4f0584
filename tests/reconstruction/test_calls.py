from __future__ import annotations

import torch
from torch import nn

from autoprune.reconstruction._calls import Branch, branches, record
from tests.reconstruction.nets import Residual, images, trained_like


def names(model: nn.Module) -> list[str]:
    return [made.function.__name__ for made in record(model.eval(), (images(1),))]


def test_each_contraction_aims_as_far_as_it_alone_is_read() -> None:
    model = trained_like(Residual())
    calls = names(model)
    convolutions = [number for number, name in enumerate(calls) if name == "conv2d"]
    found = branches(record(model, (images(1),)))
    stem, first, second = convolutions
    total = calls.index("add")
    assert found == {
        "stem.0.weight": Branch(stem, stem + 1, None, normalised=True),
        "first.0.weight": Branch(first, first + 1, None, normalised=True),
        "second.0.weight": Branch(second, total, stem + 2, normalised=True),
        "head.weight": Branch(len(calls) - 1, len(calls) - 1),
    }


class Downsampled(nn.Module):
    """Two convolutions that meet in a sum, in place, behind a dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.long = nn.Conv2d(3, 4, 1)
        self.short = nn.Conv2d(3, 4, 1)
        self.drop = nn.Dropout(0.5)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return [n, 4, h, w]."""
        long = self.long(batch)
        long += self.drop(self.short(batch))
        return torch.relu(long)


def test_of_two_contractions_in_a_sum_the_later_makes_up_for_the_earlier() -> None:
    found = branches(record(Downsampled().double().eval(), (images(1),)))
    assert found["long.weight"].other is None
    assert found["short.weight"].other == found["long.weight"].call
    assert found["short.weight"].target > found["short.weight"].call


class Shared(nn.Module):
    """Calls one convolution twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        """Return [n, 3, h, w]."""
        twice: torch.Tensor = self.conv(self.conv(batch))
        return twice


def test_a_weight_that_is_used_twice_has_no_aim() -> None:
    assert branches(record(Shared().double().eval(), (images(1),))) == {}
