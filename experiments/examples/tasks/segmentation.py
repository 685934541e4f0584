"""Segmentation: torchvision's LR-ASPP with a loss of one's own and the mean intersection over union.

    python -m experiments.examples.tasks.segmentation [--tiny]

The output of the model is a dict, whose first tensor [n, classes, H, W] goes to loss and metric.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.models.segmentation import (  # type: ignore[import-untyped]  # ships no types
    lraspp_mobilenet_v3_large,
)

from experiments.examples.tasks.runner import Example, run
from experiments.examples.tasks.shapes import NAMES, Shapes, as_segmentation

SIZE = 64


def dice_and_cross_entropy(outputs: Tensor, masks: Tensor) -> Tensor:
    """Return the cross-entropy plus one less the mean Dice coefficient of the classes."""
    shares = outputs.float().softmax(1)
    wanted = functional.one_hot(masks, len(NAMES)).movedim(-1, 1)
    both = (shares * wanted).sum((0, 2, 3))
    dice = (2 * both + 1) / (shares.sum((0, 2, 3)) + wanted.sum((0, 2, 3)) + 1)
    return functional.cross_entropy(outputs.float(), masks) + 1 - dice.mean()


class MeanIoU:
    """The mean over the classes of the intersection over the union, summed over a whole part."""

    def __init__(self) -> None:
        self._counts = torch.zeros(len(NAMES), len(NAMES))

    def update(self, outputs: Tensor, masks: Tensor) -> None:
        """Add a batch."""
        places = (len(NAMES) * masks + outputs.argmax(1)).flatten()
        self._counts += torch.bincount(places, minlength=len(NAMES) ** 2).view(len(NAMES), -1).cpu()

    def compute(self) -> float:
        """Return the mean of all batches so far."""
        hits = self._counts.diagonal()
        union = self._counts.sum(0) + self._counts.sum(1) - hits
        return float((hits / union.clamp(min=1)).mean())


def make(tiny: bool) -> Example:
    """Search a segmentation model."""
    counts = (8, 4) if tiny else (1500, 300)
    parts: list[Any] = [Shapes(count, size=SIZE, seed=seed) for seed, count in enumerate(counts)]
    batch = 4 if tiny else 16
    train = DataLoader(parts[0], batch, shuffle=True, collate_fn=as_segmentation, drop_last=True)
    val = DataLoader(parts[1], batch, collate_fn=as_segmentation)
    return Example(
        "segmentation",
        "LR-ASPP, MobileNetV3-L",
        f"generated shapes, {SIZE} px",
        "mIoU",
        lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(NAMES)),
        (train, val),
        {"loss": dice_and_cross_entropy, "metric": MeanIoU},
        epochs=15,
    )


if __name__ == "__main__":
    run(make)
