"""A tiny net and digits for flows, and the settings that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from autoprune.data import load, seeded

DATA = load("digits", batch_size=256)


def net(*, norm: bool = True, width: int = 8) -> nn.Module:
    """Return two convolutions and a classifier for 8x8 digits."""
    with seeded(0):
        norms = [nn.BatchNorm2d(width) if norm else nn.Identity() for _ in range(2)]
        first = [nn.Conv2d(1, width, 3, padding=1), norms[0], nn.ReLU()]
        second = [nn.Conv2d(width, width, 3, padding=1), norms[1], nn.ReLU()]
        return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * width, 10))


class Residual(nn.Module):
    """A stem and one residual block for 8x8 digits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
        )
        self.fc = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        logits: Tensor = self.fc(nn.functional.adaptive_avg_pool2d((x + self.block(x)).relu(), 2).flatten(1))
        return logits


def residual() -> nn.Module:
    """Return a net that fits all presets."""
    with seeded(0):
        return Residual()


def masked(folder: Path, **sections: Any) -> dict[str, Any]:
    """Return a config of a flow of masks with a training of two epochs."""
    changes: dict[str, Any] = {"flow": {"stages": ["mask", "finetune"]}, "mask": {"sparsity": 0.75}}
    for name, keys in sections.items():
        changes[name] = {**changes.get(name, {}), **keys}
    return settings(folder, **{"budget": None, "select": None, "sparsify": None, "repair": None, **changes})


def settings(folder: Path, **sections: Any) -> dict[str, Any]:
    """Return a config of a whole flow with trainings of two epochs."""
    training = {"epochs": 2, "learning_rate": 0.1}
    base: dict[str, Any] = {
        "budget": {"macs": "50%"},
        "search": {"setting": "float32 contiguous"},
        "flow": {"stages": ["sparsify", "select", "repair", "finetune"]},
        "sparsify": {**training, "strength": 1e-3},
        "select": {"by": "global-threshold"},
        "repair": {"images": 64},
        "finetune": training,
        "output": {"folder": str(folder)},
    }
    for name, keys in sections.items():
        base[name] = {**base.get(name, {}), **keys} if keys is not None else {}
    return base
