"""Pre-activation residual nets for small images, plain or with channel selection.

Example:
    model = preresnet20(classes=10, in_channels=3, select=True)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from autoprune.nn import ChannelSelection

_EXPANSION = 4
"""Number of channels of the stream for each channel inside a block."""


class PreActivation(nn.Module):
    """BatchNorm and ReLU before each of three convolutions: 1x1, 3x3 and 1x1, parallel to a shortcut.

    If the shape changes, the shortcut is a 1x1 projection of the first activations.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, select: bool) -> None:
        super().__init__()
        outputs = channels * _EXPANSION
        self.select = ChannelSelection(in_channels) if select else nn.Identity()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module | None = None
        if stride != 1 or in_channels != outputs:
            self.shortcut = nn.Conv2d(in_channels, outputs, 1, stride, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map [n, in_channels, h, w] to [n, 4 * channels, h / stride, w / stride]."""
        active = self.relu(self.bn1(self.select(inputs)))
        hidden = self.conv2(self.relu(self.bn2(self.conv1(active))))
        outputs: Tensor = self.conv3(self.relu(self.bn3(hidden)))
        return outputs + (inputs if self.shortcut is None else self.shortcut(active))


class PreActivationResNet(nn.Module):
    """A 3x3 stem, stages of blocks (all but the first halve the map), BatchNorm, average pool, linear head.

    With `select`, each BatchNorm that reads the stream of a stage selects channels of its own. Only the first
    block reads the stem, so there is no selection between them.

    Reference: He et al., "Identity Mappings in Deep Residual Networks", 2016, section 4 and the appendix.
    """

    def __init__(
        self, blocks: int, widths: Sequence[int], classes: int, in_channels: int, *, select: bool = False
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.layers = nn.ModuleList()
        previous = widths[0]
        for stage, width in enumerate(widths):
            for block in range(blocks):
                stride = 2 if stage and not block else 1
                selects = select and len(self.layers) > 0
                self.layers.append(PreActivation(previous, width, stride, select=selects))
                previous = width * _EXPANSION
        self.select = ChannelSelection(previous) if select else nn.Identity()
        self.bn = nn.BatchNorm2d(previous)
        self.relu = nn.ReLU(inplace=True)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(previous, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images [n, in_channels, h, w] to logits [n, classes]."""
        hidden = self.conv1(inputs)
        for layer in self.layers:
            hidden = layer(hidden)
        logits: Tensor = self.fc(self.avgpool(self.relu(self.bn(self.select(hidden)))).flatten(1))
        return logits


def preresnet20(classes: int, in_channels: int, *, select: bool = False) -> nn.Module:
    """Build a pre-activation ResNet-20 for images of about 32 px: three stages of two blocks."""
    return PreActivationResNet(2, (16, 32, 64), classes, in_channels, select=select)


def preresnet56(classes: int, in_channels: int, *, select: bool = False) -> nn.Module:
    """Build a pre-activation ResNet-56 for images of about 32 px: three stages of six blocks."""
    return PreActivationResNet(6, (16, 32, 64), classes, in_channels, select=select)


def preresnet164(classes: int, in_channels: int, *, select: bool = False) -> nn.Module:
    """Build a pre-activation ResNet-164 for images of about 32 px: three stages of eighteen blocks."""
    return PreActivationResNet(18, (16, 32, 64), classes, in_channels, select=select)
