"""DenseNet-40 for small images: each layer reads the outputs of all layers before it in its block.

Example:
    model = densenet40(classes=100, in_channels=3)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from autoprune.nn import ChannelSelection


class DenseLayer(nn.Module):
    """BatchNorm, ReLU and a 3x3 convolution. The outputs are appended to the inputs."""

    def __init__(self, in_channels: int, growth: int, *, select: bool) -> None:
        super().__init__()
        self.select = ChannelSelection(in_channels) if select else nn.Identity()
        self.bn = nn.BatchNorm2d(in_channels)
        self.relu = nn.ReLU()
        self.conv = nn.Conv2d(in_channels, growth, 3, 1, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [n, in_channels, h, w] to [n, in_channels + growth, h, w]."""
        return torch.cat([inputs, self.conv(self.relu(self.bn(self.select(inputs))))], dim=1)


class DenseNet(nn.Module):
    """Three dense blocks with a 1x1 convolution and a 2x2 average pool between them, and a linear head.

    Reference:
        Huang et al., "Densely Connected Convolutional Networks", 2017, section 3, without bottleneck layers
        and without compression (neither -B nor -C), and with 16 channels before the first block.
    """

    def __init__(
        self, layers: int, growth: int, classes: int, in_channels: int, *, select: bool = False
    ) -> None:
        super().__init__()
        channels = 16
        self.features = nn.Sequential()
        self.features.add_module("conv", nn.Conv2d(in_channels, channels, 3, 1, 1, bias=False))
        for block in range(3):
            dense = [DenseLayer(channels + growth * n, growth, select=select) for n in range(layers)]
            self.features.add_module(f"block{block + 1}", nn.Sequential(*dense))
            channels += growth * layers
            if block < 2:
                transition = nn.Sequential(
                    nn.BatchNorm2d(channels),
                    nn.ReLU(),
                    nn.Conv2d(channels, channels, 1, bias=False),
                    nn.AvgPool2d(2),
                )
                if select:
                    self.features.add_module(f"select{block + 1}", ChannelSelection(channels))
                self.features.add_module(f"transition{block + 1}", transition)
        if select:
            self.features.add_module("select", ChannelSelection(channels))
        self.features.add_module("bn", nn.BatchNorm2d(channels))
        self.features.add_module("relu", nn.ReLU())
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images [n, in_channels, h, w] to logits [n, classes]."""
        logits: Tensor = self.fc(self.avgpool(self.features(inputs)).flatten(1))
        return logits


def densenet40(classes: int, in_channels: int, *, select: bool = False) -> nn.Module:
    """Build DenseNet-40 with growth 12 for images of about 32 px: three blocks of twelve layers."""
    return DenseNet(12, 12, classes, in_channels, select=select)
