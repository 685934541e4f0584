"""A residual net for small images, half of whose multiply-adds are in a stem of two 7x7 convolutions."""

from __future__ import annotations

from torch import nn

from autoprune.zoo.resnet import ResNet


def large_stem(classes: int, in_channels: int) -> nn.Module:
    """Build a net with two 7x7 convolutions and three stages of one block, of 16, 32 and 64 channels."""
    net = ResNet(1, (16, 32, 64), classes, in_channels)
    first, second = (nn.Conv2d(read, 16, 7, 1, 3, bias=False) for read in (in_channels, 16))
    stem = nn.Sequential(first, nn.BatchNorm2d(16), nn.ReLU(inplace=True), second)
    for layer in (first, second):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    net.add_module("conv1", stem)
    return net
