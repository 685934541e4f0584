"""Models whose inputs are awkward, for the probes."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class TwoInputs(nn.Module):
    """Takes images and, by keyword, indices and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.embed = nn.Embedding(5, 4)

    def forward(self, images: Tensor, kinds: Tensor, doubled: bool = False) -> Tensor:
        x = self.norm(self.conv(images)).mean((2, 3)) + self.embed(kinds)
        return x * 2 if doubled else x  # type: ignore[no-any-return]  # nn.Module calls give Any


TWO_INPUTS = {"images": torch.zeros(1, 3, 8, 8), "kinds": torch.tensor([3])}


def four_layers() -> nn.Module:
    """Return three convolutions, one of them pointwise, and a linear layer for 8x8 images."""
    torch.manual_seed(0)
    first = [nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU()]
    second = [nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU()]
    pointwise = [nn.Conv2d(32, 32, 1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10)]
    return nn.Sequential(*first, *second, *pointwise, *head).eval()


class Sees(nn.Module):
    """Notes what it is run on, and how."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.seen: list[tuple[Tensor, bool, bool, int]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append((images, self.training, torch.is_inference_mode_enabled(), torch.get_num_threads()))
        return self.conv(images)  # type: ignore[no-any-return]  # nn.Module calls give Any


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    """Copy the tensors of a model, to see later whether they changed."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def unchanged_since(model: nn.Module, before: dict[str, Tensor]) -> bool:
    now = model.state_dict()
    return all(
        torch.equal(now[name], tensor) and now[name].dtype == tensor.dtype for name, tensor in before.items()
    )
