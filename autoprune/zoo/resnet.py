"""Residual networks for small images: ResNet-20, ResNet-56 and a tiny one for 8x8 digits.

Example:
    model = resnet20(classes=10, in_channels=1)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut, which is a 1x1 projection if the shape changes."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [n, in_channels, h, w] to [n, channels, h / stride, w / stride]."""
        hidden = self.relu(self.bn1(self.conv1(inputs)))
        outputs: Tensor = self.relu(self.bn2(self.conv2(hidden)) + self.shortcut(inputs))
        return outputs


class ResNet(nn.Module):
    """A 3x3 stem, stages of basic blocks (all but the first halve the map), average pool, linear head.

    Reference:
        He et al., "Deep Residual Learning for Image Recognition", 2015, section 4.2. Difference: the
        shortcuts between stages are 1x1 projections (option B). The paper's CIFAR networks pad with zeros
        (option A), which would tie the channels of a stage to fixed positions in the next stage.
    """

    def __init__(self, blocks: int, widths: Sequence[int], classes: int, in_channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.relu = nn.ReLU(inplace=True)
        previous = widths[0]
        self.stages = len(widths)
        for stage, width in enumerate(widths):
            layers = [
                BasicBlock(width if block else previous, width, stride=2 if stage and not block else 1)
                for block in range(blocks)
            ]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
            previous = width
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(previous, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images [n, in_channels, h, w] to logits [n, classes]."""
        hidden: Tensor = self.relu(self.bn1(self.conv1(inputs)))
        for stage in range(self.stages):
            hidden = self.get_submodule(f"layer{stage + 1}")(hidden)
        logits: Tensor = self.fc(self.avgpool(hidden).flatten(1))
        return logits


def resnet20(classes: int, in_channels: int) -> nn.Module:
    """Build ResNet-20 for images of about 32 px: three stages of three blocks, 16, 32 and 64 channels."""
    return ResNet(3, (16, 32, 64), classes, in_channels)


def resnet56(classes: int, in_channels: int) -> nn.Module:
    """Build ResNet-56 for images of about 32 px: three stages of nine blocks, 16, 32 and 64 channels."""
    return ResNet(9, (16, 32, 64), classes, in_channels)


def digits_resnet(classes: int, in_channels: int) -> nn.Module:
    """Build a residual network for 8x8 images that trains in seconds: two stages of two blocks."""
    return ResNet(2, (16, 32), classes, in_channels)
