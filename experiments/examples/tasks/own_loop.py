"""Classification with a training loop of one's own: mixup in `train_step`, and a function as evaluation.

    python -m experiments.examples.tasks.own_loop [--tiny]

`train_step` returns the loss of a batch. The dense model is trained by a plain loop around the same function.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.zoo import make_model
from experiments.examples.tasks.digits import digits, loaders
from experiments.examples.tasks.runner import Example, run


def mixup_step(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the loss of a batch whose images are blended in pairs.

    Reference: Zhang et al., mixup, ICLR 2018, section 2.
    """
    images, labels = batch
    share = float(torch.distributions.Beta(0.3, 0.3).sample())
    order = torch.randperm(len(images))
    outputs = model(share * images + (1 - share) * images[order])
    first, second = (functional.cross_entropy(outputs, each) for each in (labels, labels[order]))
    return share * first + (1 - share) * second


def evaluate(model: nn.Module, loader: Any) -> float:
    """Return the mean over the classes of the share that is recognised."""
    hits, counts = torch.zeros(10), torch.zeros(10)
    for images, labels in loader:
        right = model(images).argmax(1) == labels
        counts += torch.bincount(labels, minlength=10)
        hits += torch.bincount(labels[right], minlength=10)
    return float((hits / counts.clamp(min=1)).mean())


def train(model: nn.Module, loader: Any, epochs: int) -> None:
    """Train the dense model in place."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model.train()
    for _ in range(epochs):
        for batch in loader:
            optimizer.zero_grad()
            torch.autograd.backward(mixup_step(model, batch))
            optimizer.step()


def make(tiny: bool) -> Example:
    """Search a classifier that is trained with mixup."""
    train_part, val_part = digits(tiny=tiny)
    return Example(
        "own_loop",
        "small residual net",
        "digits, 8 px",
        "mean accuracy of the classes",
        make_model("digits_resnet", 10, 1),
        loaders(train_part, val_part, tiny=tiny),
        {"train_step": mixup_step, "evaluate": evaluate, "metric": "class accuracy"},
        epochs=30,
        train=train,
    )


if __name__ == "__main__":
    run(make)
