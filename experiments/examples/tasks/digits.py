"""scikit-learn's digits as tensors, split into a training and a validation part.

train, val = digits(tiny=False, size=16)     # data sets of (image [1, 16, 16], label)
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # ships no types
from torch.utils.data import DataLoader, TensorDataset


def digits(*, tiny: bool, size: int = 8) -> tuple[TensorDataset, TensorDataset]:
    """Return the two parts, with images enlarged to `size` pixels."""
    found = load_digits()
    images = torch.tensor(found.images).float()[:, None] / 8 - 1
    images = functional.interpolate(images, size=size, mode="bilinear")
    labels = torch.tensor(found.target).long()
    low, high = (64, 96) if tiny else (1400, len(labels))
    return TensorDataset(images[:low], labels[:low]), TensorDataset(images[low:high], labels[low:high])


def loaders(train: Any, val: Any, *, tiny: bool) -> tuple[Any, Any]:
    """Return loaders of two parts."""
    batch = 16 if tiny else 64
    return DataLoader(train, batch, shuffle=True, drop_last=True), DataLoader(val, batch)
