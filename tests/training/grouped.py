"""A short training that one process or several run: the losses of its steps, and its weights.

python -m torch.distributed.run --nproc-per-node=2 -m tests.training.grouped folder
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from autoprune.data import load, seeded
from autoprune.execution import ALONE, Group, Setting, joined
from autoprune.support.threads import cpu_threads
from autoprune.training import FitResult, Moment, Schedule, StepHook, Task, fit


class SkippedPart(nn.Module):
    """Without BatchNorm. A head trains on each second call alone, as with layers that are dropped."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3)
        self.fc = nn.Linear(288, 10)
        self.never, self.sometimes = nn.Linear(2, 2), nn.Linear(288, 10)
        self.calls = 0

    def forward(self, images: Tensor) -> Tensor:
        features = self.conv(images).relu().flatten(1)
        logits: Tensor = self.fc(features)
        self.calls += 1
        return logits + self.sometimes(features) if self.calls % 2 else logits


class Normalised(nn.Sequential):
    """With BatchNorm after a convolution and over features."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()),
            *(nn.Linear(288, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10)),
        )


class Regression(nn.Sequential):
    """Predicts one number, the label."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 1))


NETS = {"plain": SkippedPart, "normalised": Normalised, "regression": Regression}


def absolute_error(outputs: Tensor, labels: Tensor) -> Tensor:
    """A loss whose ratio to the squared error differs between two halves of a batch."""
    return (outputs.squeeze(1) - labels).abs().mean()


def closeness(outputs: Tensor, labels: Tensor) -> Tensor:
    return -absolute_error(outputs, labels)


TASKS = {"regression": Task(loss=absolute_error, metric=closeness)}


class Gradients(StepHook):
    """Keeps the norm of each step's gradients."""

    identity = "gradients"

    def __init__(self) -> None:
        self.norms: list[float] = []

    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        found = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
        self.norms.append(float(torch.cat(found).norm()))


def train(name: str, group: Group = ALONE) -> tuple[nn.Module, FitResult, list[float]]:
    """Train a net for two epochs with a teacher and an average of weights. Batches of 63 do not halve."""
    with seeded(0):
        model = NETS[name]()
        teacher = Regression() if name in TASKS else nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    data = load("digits", batch_size=63)
    schedule = Schedule(epochs=2, learning_rate=0.02, ema=0.9)
    hook = Gradients()
    with cpu_threads(1):
        task = TASKS.get(name, Task())
        result = fit(
            model, data, schedule, Setting(), task, seed=0, teacher=teacher, hooks=(hook,), group=group
        )
    return model, result, hook.norms


def main() -> None:
    """Train all nets, and save what each process ends with."""
    with joined() as group:
        found = {name: kept(*train(name, group)) for name in NETS}
    torch.save(found, Path(sys.argv[1]) / f"{group.rank}.pt")


def kept(model: nn.Module, result: FitResult, norms: list[float]) -> dict[str, object]:
    return {
        "weights": model.state_dict(),
        "losses": [record.loss for record in result.records],
        "scores": [record.score for record in result.records],
        "norms": norms,
    }


if __name__ == "__main__":
    main()
