"""The schedule of a training: its length, its learning rates and its optimiser.

Example:
    schedule = Schedule(epochs=30, learning_rate=0.1, schedule="cosine", warmup=0.05)
    learning_rate_at(schedule, step=0, total=1000)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autoprune.config.settings import FinetuneSettings, ScheduleSettings
from autoprune.errors import ConfigError, unknown


@dataclass(frozen=True)
class Schedule:
    """The length and the hyperparameters of a training, by default those of the settings.

    Args:
        epochs: length in epochs. Give either `epochs` or `steps`.
        steps: length in batches.
        learning_rate: the highest learning rate.
        optimizer: a row of OPTIMIZERS.
        momentum: Nesterov momentum of SGD, or the first beta of Adam and AdamW.
        weight_decay: weight decay of convolutions and linear layers. Biases and normalisations have none.
        schedule: a row of SHAPES.
        warmup: share of the steps in which the learning rate rises linearly.
        rate_by_score: (score, learning rate) pairs with rising scores, in place of `schedule`. A rate holds
            from the first epoch after the validation metric reached its score.
        label_smoothing: share of each target that is spread over all classes.
        ema: decay per step of an exponential moving average of the weights, or 0 for none. The average is
            evaluated and kept.
        distill_weight: weight of the distillation loss, if there is a teacher.
        temperature: temperature of the softmax in the distillation loss.

    Raises:
        ConfigError: if a value is out of its range or a name is unknown.
    """

    epochs: int | None = None
    steps: int | None = None
    learning_rate: float = ScheduleSettings.learning_rate
    optimizer: str = ScheduleSettings.optimizer
    momentum: float = ScheduleSettings.momentum
    weight_decay: float = ScheduleSettings.weight_decay
    schedule: str = ScheduleSettings.schedule
    warmup: float = ScheduleSettings.warmup
    rate_by_score: tuple[tuple[float, float], ...] = ScheduleSettings.rate_by_score
    label_smoothing: float = ScheduleSettings.label_smoothing
    ema: float = ScheduleSettings.ema
    distill_weight: float = FinetuneSettings.distill_weight
    temperature: float = FinetuneSettings.temperature

    def __post_init__(self) -> None:
        if (self.epochs is None) == (self.steps is None):
            raise ConfigError(
                f"schedule: epochs={self.epochs} and steps={self.steps}. Give exactly one of the two."
            )
        ranges = {
            "epochs": self.epochs is None or self.epochs >= 1,
            "steps": self.steps is None or self.steps >= 1,
            "learning_rate": self.learning_rate > 0,
            "momentum": 0 <= self.momentum < 1,
            "weight_decay": self.weight_decay >= 0,
            "warmup": 0 <= self.warmup < 1,
            "rate_by_score": all(rate > 0 for _, rate in self.rate_by_score)
            and list(self.rate_by_score) == sorted(self.rate_by_score),
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "ema": 0 <= self.ema < 1,
            "distill_weight": 0 <= self.distill_weight <= 1,
            "temperature": self.temperature > 0,
        }
        wrong = next((name for name, right in ranges.items() if not right), None)
        if wrong is not None:
            raise ConfigError(f"schedule.{wrong}: {getattr(self, wrong)} is out of its range.")
        for name, value, table in (
            ("optimizer", self.optimizer, OPTIMIZERS),
            ("schedule", self.schedule, SHAPES),
        ):
            if value not in table:
                raise ConfigError(unknown(f"schedule.{name}", value, table))

    def total_steps(self, steps_per_epoch: int) -> int:
        """Return the length in steps, for a training part of `steps_per_epoch` batches."""
        return self.steps if self.steps is not None else (self.epochs or 0) * steps_per_epoch


def learning_rate_at(schedule: Schedule, step: int, total: int, best_score: float = -math.inf) -> float:
    """Return the learning rate of step 0, 1, ... total - 1.

    Args:
        schedule: the schedule.
        step: the step.
        total: length of the training in steps.
        best_score: the best validation metric of the epochs before.
    """
    reached = [rate for score, rate in schedule.rate_by_score if best_score >= score]
    rate = reached[-1] if reached else schedule.learning_rate
    rising = round(schedule.warmup * total)
    if step < rising:
        return rate * (step + 1) / (rising + 1)
    shape = _constant if schedule.rate_by_score else SHAPES[schedule.schedule]
    return rate * shape((step - rising) / max(1, total - rising))


def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def _one_cycle(progress: float) -> float:
    return 1 - progress


def _constant(progress: float) -> float:
    return 1.0


def _step(progress: float) -> float:
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


SHAPES: Mapping[str, Callable[[float], float]] = {
    "cosine": _cosine,
    "one-cycle": _one_cycle,
    "constant": _constant,
    "step": _step,
}
"""{name: function of the progress in [0, 1) after the warm-up, that returns a share of the learning rate}.

"one-cycle" is the triangle of Smith and Topin, "Super-Convergence", 2018, section 3. Differences: `warmup`
sets the length of the rise (nearly half in the paper, 0.2 to 0.3 is usual), and the momentum has no cycle.
"""


def _sgd(groups: list[dict[str, Any]], schedule: Schedule) -> torch.optim.Optimizer:
    return torch.optim.SGD(
        groups,
        lr=schedule.learning_rate,
        momentum=schedule.momentum,
        nesterov=schedule.momentum > 0,
        foreach=True,
    )


def _adam(groups: list[dict[str, Any]], schedule: Schedule) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr=schedule.learning_rate, betas=(schedule.momentum, 0.999), foreach=True)


def _adamw(groups: list[dict[str, Any]], schedule: Schedule) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, lr=schedule.learning_rate, betas=(schedule.momentum, 0.999), foreach=True
    )


OPTIMIZERS: Mapping[str, Callable[[list[dict[str, Any]], Schedule], torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}
"""{name: function of (parameter groups, schedule)}."""


def make_optimizer(model: nn.Module, schedule: Schedule) -> torch.optim.Optimizer:
    """Build the optimiser of a model's trainable parameters. Only matrices and kernels have weight decay."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {
            "params": [parameter for parameter in parameters if parameter.ndim >= 2],
            "weight_decay": schedule.weight_decay,
        },
        {"params": [parameter for parameter in parameters if parameter.ndim < 2], "weight_decay": 0.0},
    ]
    return OPTIMIZERS[schedule.optimizer]([group for group in groups if group["params"]], schedule)
