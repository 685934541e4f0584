"""Generated images of shapes: noise with bright squares and discs, their boxes, classes and masks.

image, target = Shapes(64, size=96, seed=0)[3]
target["boxes"], target["labels"], target["masks"]
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

NAMES = ("background", "square", "disc")


class Shapes(Dataset[tuple[Tensor, dict[str, Any]]]):
    """`count` images [3, size, size] with one to three shapes each. Image i depends on seed and i only."""

    def __init__(self, count: int, *, size: int, seed: int) -> None:
        self._count, self._size, self._seed = count, size, seed

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        if index >= self._count:
            raise IndexError(index)
        rng = torch.Generator().manual_seed(1_000_003 * self._seed + index)
        size = self._size
        image = 0.3 * torch.randn(3, size, size, generator=rng)
        mask = torch.zeros(size, size, dtype=torch.int64)
        boxes, labels = [], []
        rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
        for _ in range(int(torch.randint(1, 4, (), generator=rng))):
            side = int(torch.randint(size // 5, size // 2, (), generator=rng))
            top, left = torch.randint(0, size - side, (2,), generator=rng).tolist()
            label = int(torch.randint(1, len(NAMES), (), generator=rng))
            inside = (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)
            if NAMES[label] == "disc":
                middle = (side - 1) / 2
                inside &= (rows - top - middle) ** 2 + (columns - left - middle) ** 2 <= (side / 2) ** 2
            colour = 0.6 + 0.8 * torch.rand(3, 1, generator=rng)
            image[:, inside] = colour + 0.1 * torch.randn(3, int(inside.sum()), generator=rng)
            mask[inside] = label
            boxes.append([left, top, left + side, top + side])
            labels.append(label)
        target = {"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels), "mask": mask}
        return image, target


def as_detection(samples: list[tuple[Tensor, dict[str, Any]]]) -> tuple[list[Tensor], list[dict[str, Any]]]:
    """Collate samples to lists, as torchvision's detectors take them."""
    keys = ("boxes", "labels")
    return [image for image, _ in samples], [{key: each[key] for key in keys} for _, each in samples]


def as_segmentation(samples: list[tuple[Tensor, dict[str, Any]]]) -> tuple[Tensor, Tensor]:
    """Collate samples to images [n, 3, size, size] and masks [n, size, size]."""
    return torch.stack([image for image, _ in samples]), torch.stack([each["mask"] for _, each in samples])
