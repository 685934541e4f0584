"""A model of two inputs: an image and where it was taken from, joined before the last layer.

    python -m experiments.examples.tasks.two_inputs [--tiny]

The loader yields ((images, places), labels): a tuple of inputs holds the arguments of the model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.examples.tasks.digits import digits, loaders
from experiments.examples.tasks.runner import Example, run


class Joined(nn.Module):
    """A small convolutional net and a small dense net whose features are concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.image = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.place = nn.Sequential(nn.Linear(2, 16), nn.ReLU())
        self.last = nn.Linear(80, 10)

    def forward(self, images: Tensor, places: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.last(torch.cat([self.image(images), self.place(places)], dim=1))
        return logits


def moved(part: Any) -> list[tuple[tuple[Tensor, Tensor], Tensor]]:
    """Return digits at random places of 12 x 12 pixels, with the place as the second input."""
    rng = torch.Generator().manual_seed(0)
    samples = []
    for pixels, label in part:
        top, left = torch.randint(0, 5, (2,), generator=rng).tolist()
        image = -torch.ones(1, 12, 12)
        image[:, top : top + 8, left : left + 8] = pixels
        samples.append(((image, torch.tensor([top, left]) / 4), label))
    return samples


def make(tiny: bool) -> Example:
    """Search a model of two inputs."""
    train, val = map(moved, digits(tiny=tiny))
    return Example(
        "two_inputs",
        "2 convolutions joined with a dense layer",
        "moved digits and their places",
        "accuracy",
        Joined(),
        loaders(train, val, tiny=tiny),
        {},
        epochs=30,
        sections={"finetune": {"teacher": "dense"}},
    )


if __name__ == "__main__":
    run(make)
