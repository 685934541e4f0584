"""Super-resolution: a small net that doubles the size of images, scored by PSNR.

    python -m experiments.examples.tasks.super_resolution [--tiny]

Inputs and targets are images. The metric is a mean over images, so `evaluate` also returns their values, by
which the verdict of a search can pair models.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.examples.tasks.runner import Example, run
from experiments.examples.tasks.shapes import Shapes

SIZE = 48


class Doubling(nn.Module):
    """Adds details to the enlarged image: convolutions at the small size, then a pixel shuffle."""

    def __init__(self, width: int = 32, depth: int = 4) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, width, 5, padding=2)
        self.body = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)) for _ in range(depth)
        )
        self.last = nn.Conv2d(width, 12, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return images of twice the size."""
        maps = self.first(images).relu()
        for block in self.body:
            maps = maps + block(maps)
        larger = functional.interpolate(images, scale_factor=2, mode="bilinear")
        return larger + functional.pixel_shuffle(self.last(maps), 2)


def evaluate(model: nn.Module, loader: Any) -> dict[str, Any]:
    """Return the mean peak signal-to-noise ratio in dB, and that of each image."""
    errors = torch.cat([(model(small) - large).square().mean((1, 2, 3)) for small, large in loader])
    values = 10 * torch.log10(4 / errors.clamp(min=1e-10))  # the images span about 2
    return {"PSNR": values.mean(), "samples": values}


def as_pairs(samples: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, Tensor]:
    """Collate samples to images of half the size, and the images."""
    large = torch.stack([image for image, _ in samples])
    return functional.avg_pool2d(large, 2), large


def make(tiny: bool) -> Example:
    """Search a super-resolution model."""
    counts = (16, 8) if tiny else (2000, 300)
    parts: list[Any] = [Shapes(count, size=SIZE, seed=seed) for seed, count in enumerate(counts)]
    batch = 8 if tiny else 16
    train = DataLoader(parts[0], batch, shuffle=True, collate_fn=as_pairs, drop_last=True)
    return Example(
        "super_resolution",
        "4 residual convolutions and a pixel shuffle",
        f"generated shapes, {SIZE // 2} to {SIZE} px",
        "PSNR in dB",
        Doubling(),
        (train, DataLoader(parts[1], batch, collate_fn=as_pairs)),
        {"loss": functional.l1_loss, "evaluate": evaluate, "metric": "PSNR"},
        epochs=15,
        sections={"finetune": {"teacher": "dense"}},
    )


if __name__ == "__main__":
    run(make)
