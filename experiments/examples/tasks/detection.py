"""Detection: torchvision's SSDLite, with its own losses, searched in its backbone and scored by mAP.

    python -m experiments.examples.tasks.detection [--tiny]

The detector does not trace as a whole, because of its post-processing. `target = "backbone"` traces and
narrows that part. The whole detector is trained, scored and saved.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision
from torchvision.models.detection import (  # type: ignore[import-untyped]  # ships no types
    ssdlite320_mobilenet_v3_large,
)

from experiments.examples.tasks.runner import Example, run
from experiments.examples.tasks.shapes import NAMES, Shapes, as_detection

SIZE = 96


class MeanPrecision:
    """The mean average precision at an overlap of 0.5, one of several numbers of torchmetrics' class."""

    def __init__(self) -> None:
        self._metric: Any = MeanAveragePrecision(iou_type="bbox", backend="faster_coco_eval")

    def update(self, outputs: list[dict[str, Tensor]], targets: list[dict[str, Tensor]]) -> None:
        """Add a batch."""
        self._metric.update(outputs, targets)

    def compute(self) -> float:
        """Return the precision of all batches so far."""
        return float(self._metric.compute()["map_50"])

    def reset(self) -> None:
        """Forget all batches."""
        self._metric.reset()


def prepare(batch: Any) -> Any:
    """Make the list of images the one argument of the model."""
    images, targets = batch
    return (images,), targets


def make(tiny: bool) -> Example:
    """Search a detector in its backbone."""
    model = ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=len(NAMES))
    model.transform.fixed_size = (SIZE, SIZE)
    counts = (8, 4) if tiny else (2000, 300)
    parts: list[Any] = [Shapes(count, size=SIZE, seed=seed) for seed, count in enumerate(counts)]
    batch = 4 if tiny else 16
    train = DataLoader(parts[0], batch, shuffle=True, collate_fn=as_detection, drop_last=True)
    val = DataLoader(parts[1], batch, collate_fn=as_detection)
    return Example(
        "detection",
        "SSDLite, MobileNetV3-L",
        f"generated shapes, {SIZE} px",
        "mAP at 0.5",
        model,
        (train, val),
        {"loss": "model", "metric": MeanPrecision, "prepare": prepare},
        {"target": "backbone"},
        epochs=20,
    )


if __name__ == "__main__":
    run(make)
