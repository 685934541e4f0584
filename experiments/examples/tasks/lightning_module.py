"""A LightningModule: Lightning trains the dense model, and the search calls its `training_step`.

python -m experiments.examples.tasks.lightning_module [--tiny]
"""

from __future__ import annotations

from typing import Any

import lightning
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from experiments.examples.tasks.digits import digits, loaders
from experiments.examples.tasks.runner import Example, run


class Classifier(lightning.LightningModule):
    """A small convolutional classifier with the steps that a Trainer calls."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(1, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * width, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return logits."""
        logits: Tensor = self.net(images)
        return logits

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        images, labels = batch
        return functional.cross_entropy(self(images), labels)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer of the dense training."""
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


def train(model: Any, loader: Any, epochs: int) -> None:
    """Train the dense model in place with Lightning's Trainer."""
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, loader)


def train_step(model: Any, batch: Any) -> Tensor:
    """Return the loss that the module computes itself."""
    loss: Tensor = model.training_step(batch, 0)
    return loss


def make(tiny: bool) -> Example:
    """Search a LightningModule."""
    return Example(
        "lightning_module",
        "LightningModule of 2 convolutions",
        "digits, 8 px",
        "accuracy",
        Classifier(),
        loaders(*digits(tiny=tiny), tiny=tiny),
        {"train_step": train_step, "metric": "accuracy"},
        epochs=30,
        train=train,
    )


if __name__ == "__main__":
    run(make)
