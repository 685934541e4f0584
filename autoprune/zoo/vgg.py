"""VGG-16 with BatchNorm for small images.

Example:
    model = vgg16_bn(classes=10, in_channels=3)
"""

from __future__ import annotations

from torch import Tensor, nn

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Five stages of 3x3 convolutions with BatchNorm, a 2x2 max pool between stages, one linear head.

    The last pool averages the whole map, so that images of 28 px work too.

    Reference:
        Simonyan and Zisserman, "Very Deep Convolutional Networks", 2014, configuration D, in the form that is
        used on CIFAR, with one linear layer as the classifier.
    """

    def __init__(self, classes: int, in_channels: int, share: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for stage, widths in enumerate(STAGES):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for width in (int(share * width) for width in widths):
                layers.append(nn.Conv2d(channels, width, 3, 1, 1, bias=False))
                layers.append(nn.BatchNorm2d(width))
                layers.append(nn.ReLU(inplace=True))
                channels = width
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, inputs: Tensor) -> Tensor:
        """Map images [n, in_channels, h, w], at least 16 px, to logits [n, classes]."""
        logits: Tensor = self.classifier(self.avgpool(self.features(inputs)).flatten(1))
        return logits


def vgg16_bn(classes: int, in_channels: int) -> nn.Module:
    """Build the CIFAR form of VGG-16 with BatchNorm: thirteen convolutions and one linear layer."""
    return VGG(classes, in_channels)


def vgg16_bn_half(classes: int, in_channels: int) -> nn.Module:
    """Build the same with half of the channels in every convolution."""
    return VGG(classes, in_channels, share=0.5)
