"""Small nets and traced models for the tests of masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import autoprune
from autoprune.data import load, seeded
from autoprune.graph import Prunable

DATA = load("digits", batch_size=256)


class Net(nn.Module):
    """A residual stream with BatchNorms, whose constants a masked filter leaves, and a depthwise layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.inner, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.outer, self.bn3 = nn.Conv2d(8, 8, (3, 1), padding=(1, 0)), nn.BatchNorm2d(8)
        self.head = nn.Linear(32, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        x = self.bn1(self.stem(inputs)).relu()
        x = x + self.bn3(self.outer(self.bn2(self.inner(x)).relu()))
        logits: Tensor = self.head(nn.functional.adaptive_avg_pool2d(x.relu(), 2).flatten(1))
        return logits


def net() -> Net:
    """Return the net with statistics and scales of BatchNorm that are not those of a new one."""
    with seeded(0):
        model = Net()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for tensor in (module.weight, module.bias, module.running_mean):
                    nn.init.normal_(tensor)  # type: ignore[arg-type]  # a running mean is there
    return model


def traced() -> Prunable:
    return autoprune.trace(net(), torch.zeros(1, 1, 8, 8))
