"""MNIST-1D and a net for it, small enough that every plan within a budget can be trained.

    train, val, test = make_data()["train"], ...        # loaders of [n, 1, 1, 40] signals
    net = make_net(classes=10)                          # five convolutions (1, k), widths 32 to 96

The signals come from the generator of the package mnist1d (Greydanus, Scaling down deep learning, 2020),
which has to be installed: `pip install mnist1d`. They are generated once, with a fixed seed, and kept in
runs/.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    RandomSampler,
    Sampler,
    SequentialSampler,
    TensorDataset,
)

CACHE = Path("runs/allocation/mnist1d.npz")
PARTS = {"train": 4_000, "val": 4_000, "test": 50_000}
"""{part: number of signals}. The standard training part has 4,000."""

BATCH = 100
WIDTHS = (32, 32, 64, 64, 96)
KERNELS = (5, 3, 3, 3, 3)
STRIDES = (1, 2, 1, 2, 2)


def make_data() -> dict[str, DataLoader[tuple[Tensor, ...]]]:
    """Return a loader for each part: signals float32 [n, 1, 1, 40], and labels [n]."""
    signals, labels = _signals()
    parts, start = {}, 0
    for part, count in PARTS.items():
        chosen = slice(start, start + count)
        start += count
        parts[part] = TensorDataset(signals[chosen], labels[chosen])
    return {
        part: DataLoader(data, batch_size=None, sampler=_batches(data, part)) for part, data in parts.items()
    }


def _batches(data: TensorDataset, part: str) -> Sampler[list[int]]:
    """Return lists of positions, with which the data set gives a whole batch at once."""
    if part == "train":
        return BatchSampler(RandomSampler(data), BATCH, drop_last=True)
    return BatchSampler(SequentialSampler(data), 2_000, drop_last=False)


def _signals() -> tuple[Tensor, Tensor]:
    if not CACHE.exists():
        from mnist1d.data import get_dataset_args, make_dataset  # type: ignore[import-untyped, import-not-found, unused-ignore]

        args = get_dataset_args()
        args.num_samples = sum(PARTS.values())
        made = make_dataset(args)
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            CACHE,
            signals=np.concatenate([made["x"], made["x_test"]]).astype(np.float32),
            labels=np.concatenate([made["y"], made["y_test"]]).astype(np.int64),
        )
    stored = np.load(CACHE)
    return torch.from_numpy(stored["signals"])[:, None, None, :], torch.from_numpy(stored["labels"])


class SignalNet(nn.Module):
    """Convolutions over time with BatchNorm and ReLU, a mean over time, and a linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 1
        for width, kernel, stride in zip(WIDTHS, KERNELS, STRIDES, strict=True):
            layers.append(nn.Conv2d(channels, width, (1, kernel), (1, stride), (0, kernel // 2), bias=False))
            layers.extend([nn.BatchNorm2d(width), nn.ReLU()])
            channels = width
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, classes)

    def forward(self, signals: Tensor) -> Tensor:
        """Map signals [n, 1, 1, 40] to logits [n, classes]."""
        logits: Tensor = self.head(self.features(signals).mean(dim=(2, 3)))
        return logits


def make_net(classes: int) -> nn.Module:
    """Return the net with random weights."""
    return SignalNet(classes)
