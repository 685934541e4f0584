"""Small nets with layers of every kind that a repair refits, in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import autoprune
from autoprune.graph import Prunable


class Residual(nn.Module):
    """A stem, a residual block and a head, with BatchNorm or biases."""

    def __init__(self, *, norm: bool = True, channels: int = 6) -> None:
        super().__init__()

        def block(inputs: int, outputs: int) -> nn.Sequential:
            conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=not norm)
            return nn.Sequential(conv, nn.BatchNorm2d(outputs) if norm else nn.Identity())

        self.stem = block(3, channels)
        self.first = block(channels, channels)
        self.second = block(channels, channels)
        self.head = nn.Linear(channels, 4)

    def features(self, images: Tensor) -> Tensor:
        """Return [n, channels, h, w]."""
        stem = torch.relu(self.stem(images))
        return torch.relu(self.second(torch.relu(self.first(stem))) + stem)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits [n, 4]."""
        logits: Tensor = self.head(self.features(images).mean(dim=(2, 3)))
        return logits


class Longer(Residual):
    """The same with another residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.third = nn.Sequential(nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6))

    def features(self, images: Tensor) -> Tensor:
        """Return [n, channels, h, w]."""
        summed = super().features(images)
        return torch.relu(self.third(summed) + summed)


def images(count: int = 40, *, size: int = 6, seed: int = 3) -> Tensor:
    """Return smooth random images, float64 [count, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(count, 3, size, size, generator=generator, dtype=torch.float64)
    return drawn + drawn.mean(dim=1, keepdim=True)


def trained_like(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give a model float64 weights that are not symmetric, and BatchNorm statistics that fit them."""
    generator = torch.Generator().manual_seed(seed)
    model.double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(1, parameter[0].numel())
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / fan_in**0.5 if parameter.ndim > 1 else 1 + 0.3 * noise)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None
        model(images(200, seed=5))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model.eval()


def traced(model: nn.Module) -> Prunable:
    """Trace a model on one image."""
    return autoprune.trace(model, images(1))
