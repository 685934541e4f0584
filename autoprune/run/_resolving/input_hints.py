"""Advice for images and labels on which a model fails at once.

Example:
    input_hint(model, (1, 32, 32))     # " Its first convolution takes 3 channels and the images have 1; ..."
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from autoprune.data import VisionData
from autoprune.errors import ConfigError
from autoprune.graph.capture import unchanged
from autoprune.support.usercode import forward
from autoprune.training import main_output

_FEW = (1, 3)
"""Usual numbers of channels."""

_SIZES = (8, 28, 32, 64, 96, 128, 160, 192, 224, 256, 299, 384)


def input_hint(model: nn.Module, shape: tuple[int, ...]) -> str:
    """Return advice for images [C, H, W] on which the forward pass of a model fails, or ""."""
    if len(shape) != 3:
        return ""
    channels, _, width = shape
    if channels not in _FEW and width in _FEW:
        return " The images look like [n, H, W, C]. Give [n, C, H, W] with .permute(0, 3, 1, 2)."
    first = next((each for each in model.modules() if isinstance(each, nn.Conv2d)), None)
    wanted = channels if first is None else first.in_channels
    if wanted != channels:
        return (
            f" Its first convolution takes {wanted} channel{'s' if wanted > 1 else ''} and the images have "
            f"{channels}. Convert the images, or build the model for {channels}."
        )
    for size in _SIZES:
        if runs(model, torch.zeros(1, channels, size, size)):
            return (
                f" It runs on images of {size} x {size}. Scale them to the size of the training (a folder: "
                f"data.image_size = {size})."
            )
    return ""


def label_hint(data: VisionData) -> str:
    """Return advice if the labels of the validation part begin above 0, or ""."""
    low = min((int(targets.min()) for _, targets in data.val if is_labels(targets)), default=0)
    return f" The labels begin at {low}. Subtract {low}." if low > 0 else ""


def is_labels(targets: Any) -> bool:
    """Return whether targets are class numbers."""
    return isinstance(targets, Tensor) and not targets.is_floating_point()


def predict(model: nn.Module, inputs: Tensor) -> Tensor:
    """Return the classes [n] with the largest outputs. The model stays as it is."""
    with unchanged(model), torch.random.fork_rng(), torch.no_grad():
        return main_output(forward(model, inputs)).argmax(1)


def runs(model: nn.Module, inputs: Tensor) -> bool:
    """Return whether a model runs on some images."""
    try:
        predict(model, inputs)
    except (ConfigError, RuntimeError):
        return False
    return True
