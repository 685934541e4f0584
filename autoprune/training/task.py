"""The task: the loss that training minimises, and the metric that a search maximises.

Example:
    task = make_task(loss="cross_entropy", metric="accuracy")
    score = task.metric(torch.tensor([[0.1, 0.9]]), torch.tensor([1]))    # 1.0
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.support.usercode import call_plain, guarded
from autoprune.support.userfunction import look_up, reference
from autoprune.training._metrics import (
    METRICS,
    MeanMeter,
    Meter,
    Metric,
    accuracy,
    failed_on,
    kl,
    meter_of,
    nll,
    one_number,
)

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(outputs [n, ...], targets [n, ...]) -> scalar tensor, the mean loss of the batch."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits [n, classes] against labels [n] (or probabilities)."""
    return functional.cross_entropy(outputs.float(), targets)


LOSSES: Mapping[str, LossFunction] = {"cross_entropy": cross_entropy}


@dataclass(frozen=True)
class Task:
    """A loss and a metric. Both must be picklable, because a task is sent to workers.

    Attributes:
        loss: the loss of a batch.
        metric: the metric of a whole part.
        dense: the dense model, with which the metric "kl" compares.
    """

    loss: LossFunction = cross_entropy
    metric: Metric = accuracy
    dense: nn.Module | None = None

    @property
    def compares(self) -> bool:
        """Whether the metric compares outputs with those of the dense model rather than with labels."""
        return self.metric is kl

    @property
    def of_dense(self) -> Task:
        """The task for the training of the dense model, which "kl" would compare with itself."""
        return replace(self, metric=nll) if self.compares else self

    def meter(self) -> Meter:
        """Return a new meter of the metric. Its targets are outputs of the dense model if it compares."""
        if self.metric is nll and self.loss is not cross_entropy:
            return MeanMeter("loss", self.loss, lambda outputs, targets: -self._mean_loss(outputs, targets))
        return meter_of(self.metric)

    def _mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.as_tensor(one_number(call_plain(self.loss, outputs, targets)))

    def measure(self, outputs: Tensor, targets: Tensor) -> float:
        """Return the metric of one whole part of the data. If it compares, `targets` are dense outputs.

        Raises:
            ConfigError: if the metric raises an error or does not return one number.
        """
        meter = self.meter()
        meter.update(outputs, targets)
        return meter.compute()

    def require_numbers(self, outputs: Tensor, targets: Tensor) -> None:
        """Check that loss and metric return numbers on one batch.

        Raises:
            ConfigError: if one of them raises an error or does not return one number, or the loss is not
                finite.
        """
        with guarded(failed_on("loss", self.loss, outputs, targets), ConfigError):
            loss = one_number(call_plain(self.loss, outputs, targets))
        if not math.isfinite(loss):
            raise ConfigError(
                f'task.loss: "{reference(self.loss)}" is {loss} on the first validation batch, expected a '
                "finite number; check the loss, the weights and the scale of the images."
            )
        self.measure(outputs, outputs if self.compares else targets)

    def training_loss(self, label_smoothing: float = 0.0) -> LossFunction:
        """Return the loss to train with: the task's loss, with label smoothing if that is above 0.

        Raises:
            ConfigError: if label smoothing is requested for a loss other than `cross_entropy`.
        """
        if label_smoothing == 0.0:
            return self.loss
        if self.loss is not cross_entropy:
            raise ConfigError(
                f"label_smoothing: got {label_smoothing}, but only cross_entropy supports it; set it to 0 "
                "and smooth inside your own loss."
            )
        return functools.partial(_smoothed_cross_entropy, label_smoothing=label_smoothing)


def make_task(loss: str | LossFunction = "cross_entropy", metric: str | Metric = "accuracy") -> Task:
    """Build a task from names in LOSSES and METRICS, from "package.module:function", or from functions.

    Raises:
        ConfigError: if a name is unknown or cannot be imported.
    """
    return Task(
        loss=look_up(loss, LOSSES, "task.loss") if isinstance(loss, str) else loss,
        metric=look_up(metric, METRICS, "task.metric") if isinstance(metric, str) else metric,
    )


def batch_loss(loss: LossFunction, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of a batch, a scalar tensor with a gradient.

    Raises:
        ConfigError: if the loss raises an error, or does not return a real scalar tensor with a gradient.
    """
    with guarded(failed_on("loss", loss, outputs, targets), ConfigError, memory_passes=True):
        value: object = call_plain(loss, outputs, targets)
        if not (isinstance(value, Tensor) and value.numel() == 1):
            got = (
                f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
            )
            raise TypeError(f"it returned {got}, expected a tensor of one number")
        if value.is_complex():
            raise TypeError("it returned a complex number, expected a real one")
        if outputs.requires_grad and not value.requires_grad:
            raise TypeError(
                "its value has no gradient; compute it from the outputs with torch functions, without "
                ".item(), .detach(), .numpy() or argmax"
            )
    return value


def main_output(outputs: object) -> Tensor:
    """Return the main output of a model: the tensor itself, or the first of several (auxiliary heads).

    Raises:
        ConfigError: if the output is neither a tensor nor a tuple, list or dict that starts with one.
    """
    if isinstance(outputs, Mapping):
        outputs = next(iter(outputs.values()), None)
    elif isinstance(outputs, (tuple, list)) and outputs:
        outputs = outputs[0]
    if not isinstance(outputs, torch.Tensor):
        raise ConfigError(f"model: its output is a {type(outputs).__name__}, expected a tensor of logits.")
    return outputs


def _smoothed_cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(outputs.float(), targets, label_smoothing=label_smoothing)
