"""The task: how a batch is trained, and the metric that a search maximises.

Example:
    task = make_task(loss="cross_entropy", metric="accuracy")
    score = task.metric(torch.tensor([[0.1, 0.9]]), torch.tensor([1]))    # 1.0
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.data import Batch
from autoprune.errors import ConfigError, a_kind
from autoprune.support.structures import arguments, described
from autoprune.support.usercode import call_plain, forward, guarded
from autoprune.support.userfunction import load_function, look_up, reference
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

LossFunction = Callable[[Any, Any], Tensor]
"""(outputs [n, ...], targets [n, ...]) -> scalar tensor, the mean loss of the batch."""

TrainStep = Callable[[nn.Module, Batch], Tensor]
"""(model in training mode, (inputs, targets)) -> scalar tensor, the mean loss of the batch.

It changes neither the weights nor their gradients: the training calls `backward` and steps the optimizer.
"""

EvaluateFunction = Callable[[nn.Module, Any], Any]
"""(model in eval mode, loader of (inputs, targets)) -> the score, or a dict that holds it.

The key is the name of the metric. Higher is better. The dict may hold "samples", a tensor [n] of the values
whose mean is the score.
"""

AUXILIARY_WEIGHT = 0.3
"""Weight of an auxiliary head's loss: Szegedy et al., "Going Deeper with Convolutions", 2014, section 5."""


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits [n, classes] against labels [n] (or probabilities)."""
    return functional.cross_entropy(outputs.float(), targets)


def by_model(outputs: Any, targets: Any) -> Tensor:
    """Stand for a loss that the model computes itself, in training mode, from its inputs and targets.

    Raises:
        ConfigError: always, because outputs and targets do not give this loss.
    """
    raise ConfigError(
        'task.loss: "model" is known in training mode only, and here a loss of outputs and targets is '
        "needed. Name a function (outputs, targets), or choose a criterion, a metric and warm starts that "
        "need none."
    )


LOSSES: Mapping[str, LossFunction] = {"cross_entropy": cross_entropy, "model": by_model}


@dataclass(frozen=True)
class Step:
    """The result of a forward pass in training mode.

    Attributes:
        loss: the mean loss of the batch, a scalar tensor with a gradient.
        outputs: the main outputs of the model, or None if only the user's code knows them.
    """

    loss: Tensor
    outputs: Tensor | None


@dataclass(frozen=True)
class Task:
    """A loss and a metric. All of it must be picklable, because a task is sent to workers.

    Attributes:
        loss: the loss of a batch.
        metric: the metric of a whole part.
        dense: the dense model, with which the metric "kl" compares.
        train_step: the user's forward pass and loss of a batch, in place of `loss`.
        evaluate: the user's evaluation of a whole part, in place of `metric`.
        score_name: the key of the score if `evaluate` returns a dict.
    """

    loss: LossFunction = cross_entropy
    metric: Metric = accuracy
    dense: nn.Module | None = None
    train_step: TrainStep | None = None
    evaluate: EvaluateFunction | None = None
    score_name: str = ""

    @property
    def compares(self) -> bool:
        """Whether the metric compares outputs with those of the dense model rather than with labels."""
        return self.metric is kl

    @property
    def has_loss_function(self) -> bool:
        """Whether outputs and targets alone give the loss."""
        return self.train_step is None and self.loss is not by_model

    @property
    def training_code(self) -> str:
        """The name of the code that computes the loss, which identifies a training."""
        return reference(self.loss if self.train_step is None else self.train_step)

    @property
    def of_dense(self) -> Task:
        """The task for the training of the dense model, which "kl" would compare with itself."""
        return replace(self, metric=nll if self.has_loss_function else accuracy) if self.compares else self

    def step(self, model: nn.Module, batch: Batch) -> Step:
        """Run a model in training mode on a batch, and return its loss and its outputs.

        An output of the shape of the main one counts as that of an auxiliary head.

        Raises:
            ConfigError: if the model or the loss raises an error, or the loss is no real scalar tensor.
        """
        inputs, targets = batch
        if self.train_step is not None:
            where = f'task.train_step: "{reference(self.train_step)}" failed on inputs {described(inputs)}'
            with guarded(where, ConfigError, memory_passes=True):
                return Step(_scalar(call_plain(self.train_step, model, batch)), None)
        if self.loss is by_model:
            outputs = forward(model, with_targets(inputs, targets))
            return Step(loss_in(outputs), find_output(outputs))
        outputs = forward(model, inputs)
        main = main_output(outputs)
        loss = batch_loss(self.loss, main, targets)
        for auxiliary in outputs[1:] if isinstance(outputs, tuple) else ():
            if isinstance(auxiliary, Tensor) and auxiliary.shape == main.shape:
                loss = loss + AUXILIARY_WEIGHT * batch_loss(self.loss, auxiliary, targets)
        return Step(loss, main)

    def meter(self) -> Meter:
        """Return a new meter of the metric. Its targets are outputs of the dense model if it compares."""
        if self.reads_loss:
            return MeanMeter("loss", self.loss, lambda outputs, targets: -self._mean_loss(outputs, targets))
        return meter_of(self.metric)

    @property
    def reads_loss(self) -> bool:
        """Whether the metric is the mean of a loss other than the cross-entropy."""
        return self.metric is nll and self.loss is not cross_entropy

    def metric_targets(self, targets: Any) -> Any:
        """Return the targets for the metric: for a row of METRICS the first tensor of a structure."""
        is_plain = isinstance(targets, Tensor) or self.reads_loss or self.metric not in METRICS.values()
        return targets if is_plain else find_output(targets)

    def _mean_loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return torch.as_tensor(one_number(call_plain(self.loss, outputs, targets)))

    def measure(self, outputs: Any, targets: Any) -> float:
        """Return the metric of one whole part of the data. If it compares, `targets` are dense outputs.

        Raises:
            ConfigError: if the metric raises an error or does not return one number.
        """
        meter = self.meter()
        meter.update(outputs, self.metric_targets(targets))
        return meter.compute()

    def require_numbers(self, outputs: Any, targets: Any) -> None:
        """Check that loss and metric return numbers on one batch, as far as the task has them.

        Raises:
            ConfigError: if one of them raises an error or does not return one number, or the loss is not
                finite.
        """
        if self.has_loss_function:
            with guarded(failed_on("loss", self.loss, outputs, targets), ConfigError):
                loss = one_number(call_plain(self.loss, outputs, targets))
            if not math.isfinite(loss):
                raise ConfigError(
                    f'task.loss: "{reference(self.loss)}" is {loss} on the first validation batch, expected '
                    "a finite number. Check the loss, the weights and the scale of the images."
                )
        if self.evaluate is None:
            self.measure(outputs, outputs if self.compares else targets)

    def smoothed(self, label_smoothing: float = 0.0) -> Task:
        """Return the task to train with: this one, with label smoothing if that is above 0.

        Raises:
            ConfigError: if label smoothing is requested for a loss other than `cross_entropy`.
        """
        if label_smoothing == 0.0:
            return self
        if self.loss is not cross_entropy or self.train_step is not None:
            raise ConfigError(
                f"label_smoothing: got {label_smoothing}, but only cross_entropy supports it. Set it to 0 "
                "and smooth inside your own loss."
            )
        return replace(self, loss=functools.partial(_smoothed_cross_entropy, label_smoothing=label_smoothing))


def make_task(
    loss: str | LossFunction = "cross_entropy",
    metric: str | Metric = "accuracy",
    *,
    train_step: str | None = None,
    evaluate: str | None = None,
) -> Task:
    """Build a task from names in LOSSES and METRICS, from "package.module:function", or from functions.

    With `evaluate`, `metric` is the name of its score.

    Raises:
        ConfigError: if a name is unknown or cannot be imported, or the metric needs a loss that is not there.
    """
    found = look_up(loss, LOSSES, "task.loss") if isinstance(loss, str) else loss
    task = Task(
        loss=found,
        train_step=None if train_step is None else load_function(train_step, "task.train_step"),
    )
    if evaluate is not None:
        name = metric if isinstance(metric, str) else reference(metric)
        return replace(task, evaluate=load_function(evaluate, "task.evaluate"), score_name=name)
    task = replace(
        task, metric=look_up(metric, METRICS, "task.metric") if isinstance(metric, str) else metric
    )
    if task.metric is nll and not task.has_loss_function:
        raise ConfigError(
            'task.metric: "nll" is the mean of a loss of outputs and targets, and the task has none. Choose '
            "another metric, or name task.evaluate."
        )
    return task


def batch_loss(loss: LossFunction, outputs: Tensor, targets: Any) -> Tensor:
    """Return the loss of a batch, a scalar tensor with a gradient.

    Raises:
        ConfigError: if the loss raises an error, or does not return a real scalar tensor with a gradient.
    """
    with guarded(failed_on("loss", loss, outputs, targets), ConfigError, memory_passes=True):
        value = _scalar(call_plain(loss, outputs, targets))
        if outputs.requires_grad and not value.requires_grad:
            raise TypeError(
                "its value has no gradient. Compute it from the outputs with torch functions, without "
                ".item(), .detach(), .numpy() or argmax."
            )
    return value


def _scalar(value: object) -> Tensor:
    """Return a loss that is a real scalar tensor.

    Raises:
        TypeError: if it is anything else.
    """
    if not (isinstance(value, Tensor) and value.numel() == 1):
        got = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else f"{a_kind(value)}"
        raise TypeError(f"it returned {got}, expected a tensor of one number")
    if value.is_complex():
        raise TypeError("it returned a complex number, expected a real one")
    return value


def with_targets(inputs: Any, targets: Any) -> Any:
    """Return the inputs of a model that computes its loss itself.

    A dict of targets adds keyword arguments. Other targets are the last positional argument.

    Raises:
        ConfigError: if the inputs are keywords and the targets are not.
    """
    positional, named = arguments(inputs)
    if isinstance(targets, Mapping):
        if positional:
            raise ConfigError(
                'task.loss: "model" got positional inputs and a dict of targets, expected dicts of both. Let '
                "task.prepare return them."
            )
        return {**named, **targets}
    if named:
        raise ConfigError(
            'task.loss: "model" got a dict of inputs, and targets without names. Let task.prepare return a '
            "dict of targets, such as {'labels': labels}."
        )
    return (*positional, targets)


def loss_in(outputs: object) -> Tensor:
    """Return the loss that a model computed: its output, its field `loss`, or the sum of a dict of losses.

    Raises:
        ConfigError: if the outputs hold no loss.
    """
    fields = outputs if isinstance(outputs, Mapping) else getattr(outputs, "__dict__", {})
    value: object = fields.get("loss", outputs)
    if isinstance(value, Mapping):
        value = sum(value.values()) if all(isinstance(each, Tensor) for each in value.values()) else None
    if not isinstance(value, Tensor) or value.numel() != 1 or value.is_complex():
        raise ConfigError(
            f'task.loss: "model": in training mode the model returned {described(outputs)}, expected a loss, '
            'a dict of losses, or an output with a field "loss".'
        )
    return value


def find_output(outputs: object) -> Tensor | None:
    """Return the main tensor of an output, or None if there is none.

    That is the tensor itself, or the first entry of a tuple, list, dict or dataclass. A loss, which has no
    axes, and entries that are None do not count.
    """
    if dataclasses.is_dataclass(outputs) and not isinstance(outputs, Mapping):
        outputs = [getattr(outputs, each.name) for each in dataclasses.fields(outputs)]
    if isinstance(outputs, Mapping | tuple | list):
        entries = outputs.values() if isinstance(outputs, Mapping) else outputs
        outputs = next((each for each in entries if each is not None and not _is_scalar(each)), None)
    return outputs if isinstance(outputs, Tensor) else None


def _is_scalar(value: object) -> bool:
    return isinstance(value, Tensor) and value.ndim == 0


def main_output(outputs: object) -> Tensor:
    """Return the main output of a model, as `find_output` does.

    Raises:
        ConfigError: if there is none.
    """
    found = find_output(outputs)
    if found is None:
        raise ConfigError(f"model: its output is {a_kind(outputs)}, expected a tensor of logits.")
    return found


def _smoothed_cross_entropy(outputs: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    return functional.cross_entropy(outputs.float(), targets, label_smoothing=label_smoothing)
