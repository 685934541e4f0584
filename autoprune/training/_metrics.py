"""Metrics, and meters that measure them batch by batch if the metric allows it. Higher is better.

Example:
    meter = meter_of(accuracy)
    for outputs, targets in batches:
        meter.update(outputs, targets)
    meter.compute()
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, Protocol, SupportsFloat, cast

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.errors import ConfigError, a_kind
from autoprune.support.structures import described, tensors_in
from autoprune.support.usercode import call_plain, guarded
from autoprune.support.userfunction import reference

MetricFunction = Callable[[Any, Any], "Tensor | float"]
"""(outputs [n, ...], targets [n, ...]) of a whole part of the data -> one number. Higher is better."""


class StreamedMetric(Protocol):
    """A metric that takes one batch after the other, like those of torchmetrics. `reset()` is optional."""

    def update(self, outputs: Any, targets: Any, /) -> object:
        """Add the outputs and targets of one batch, tensors [n, ...] in most tasks."""

    def compute(self) -> Tensor | float:
        """Return one number for all batches so far. Higher is better."""


Metric = MetricFunction | StreamedMetric | type[StreamedMetric]
"""A function of a whole part of the data, a `StreamedMetric`, or a class of one without arguments."""


class Meter(Protocol):
    """Measures a metric on one part of the data."""

    def update(self, outputs: Any, targets: Any) -> None:
        """Add one batch.

        Raises:
            ConfigError: if the metric raises an error.
        """

    def compute(self) -> float:
        """Return the metric of all batches so far. There must be at least one.

        Raises:
            ConfigError: if the metric raises an error or does not return one number.
        """

    def samples(self) -> Tensor | None:
        """Return the value of each sample [n], in the order of the samples.

        Their mean is the metric. None if the metric is not known to be such a mean.
        """


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share, in [0, 1], of rows and positions whose largest logit is that of the label."""
    return _is_largest(outputs, targets).double().mean()


def top5(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share, in [0, 1], of rows whose label is among the five largest logits."""
    return _is_among_five(outputs, targets).double().mean()


def nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the negative mean cross-entropy, at most 0. As `task.metric`, it is that of the task's loss."""
    return _negative_cross_entropy(outputs, targets).double().mean()


def kl(outputs: Tensor, dense_outputs: Tensor) -> Tensor:
    """Return the negative mean of KL(dense || model) in nats, at most 0. It compares outputs, not labels."""
    return _negative_divergence(outputs, dense_outputs).mean()


def divergence(outputs: Tensor, reference: Tensor) -> Tensor:
    """Return KL(reference || outputs) in nats, float64 [n, ...], of each sample and position.

    Args:
        outputs: logits [n, classes, ...], or binary logits [n] or [n, 1, ...].
        reference: logits of the same shape.
    """
    first, second = (functional.log_softmax(_logits(each), dim=1) for each in (reference, outputs))
    return (first.exp() * (first - second)).sum(dim=1)


def _logits(outputs: Tensor) -> Tensor:
    outputs = outputs.double()
    if outputs.ndim > 1 and outputs.shape[1] > 1:
        return outputs
    column = outputs if outputs.ndim > 1 else outputs[:, None]
    # A binary logit is that of class 1 against a logit of 0 for class 0.
    return torch.cat([torch.zeros_like(column), column], dim=1)


def _negative_divergence(outputs: Tensor, reference: Tensor) -> Tensor:
    return -divergence(outputs, reference).clamp(min=0)  # rounding may leave less than 0


def _negative_cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return -functional.cross_entropy(outputs.float(), targets, reduction="none")


def _is_largest(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(dim=1) == targets


def _is_among_five(outputs: Tensor, targets: Tensor) -> Tensor:
    best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
    return (best == targets[:, None]).any(dim=1)


METRICS: Mapping[str, MetricFunction] = {"accuracy": accuracy, "top5": top5, "nll": nll, "kl": kl}

_MEANS = (
    (accuracy, _is_largest),
    (top5, _is_among_five),
    (nll, _negative_cross_entropy),
    (kl, _negative_divergence),
)
"""Metrics that are a mean over samples and positions, which can be summed batch by batch."""


def meter_of(metric: Metric) -> Meter:
    """Return a new meter of `metric`.

    The meter of a plain function keeps the outputs of all batches, because the value of the whole part is not
    a mean over batches in general. The meters of METRICS and of streamed metrics keep sums only.

    Raises:
        ConfigError: if the metric is a class that cannot be made without arguments.
    """
    for mean, values in _MEANS:
        if metric is mean:  # not compared by name, because a user's function may have the same name
            return MeanMeter("metric", mean, values)
    if hasattr(metric, "update") and hasattr(metric, "compute"):
        return _StreamMeter(metric)
    return _WholeMeter(metric)


class MeanMeter:
    """Averages values over samples and positions.

    Args:
        key: "metric" or "loss", the key of [task] that names the function, for errors.
        function: the function that the user named.
        values: returns the values [n, ...] of a batch of n samples and of their positions, or their mean.
    """

    def __init__(self, key: str, function: object, values: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._key = key
        self._function = function
        self._values = values
        self._sum: Tensor | float = 0.0
        self._count = 0
        self._samples: list[Tensor] | None = []

    def update(self, outputs: Any, targets: Any) -> None:
        """Add one batch."""
        with guarded(failed_on(self._key, self._function, outputs, targets), ConfigError):
            values = self._values(outputs, targets)
        if not values.ndim:
            self._samples = None
            values = values.expand(len(outputs))
        # The sum stays on the device, because reading it would make each batch wait for the one before.
        self._sum = self._sum + values.double().sum()
        self._count += values.numel()
        if self._samples is not None:
            self._samples.append(values.float().flatten(1).mean(1) if values.ndim > 1 else values.float())

    def compute(self) -> float:
        """Return the mean. The sum of 0.0 turns -0.0 into 0.0."""
        return float(self._sum) / self._count + 0.0

    def samples(self) -> Tensor | None:
        """Return the value of each sample [n], or None if only means of batches are known."""
        return None if self._samples is None else torch.cat(self._samples).cpu()


class _StreamMeter:
    """Updates a copy of the user's object, so that two parts do not share its sums."""

    def __init__(self, metric: object) -> None:
        where = f'task.metric: "{reference(metric)}" cannot be made without arguments and reset'
        with guarded(where, ConfigError):
            fresh = metric() if isinstance(metric, type) else copy.deepcopy(metric)
            if hasattr(fresh, "reset"):
                fresh.reset()
        self._metric = cast(StreamedMetric, fresh)

    def update(self, outputs: Any, targets: Any) -> None:
        if isinstance(self._metric, nn.Module):  # torchmetrics keeps its sums in buffers
            self._metric.to(next(tensors_in(outputs)).device)
        with guarded(failed_on("metric", self._metric, outputs, targets), ConfigError):
            call_plain(self._metric.update, outputs, targets)

    def compute(self) -> float:
        where = f'task.metric: "{reference(self._metric)}" failed to compute a number'
        with guarded(where, ConfigError):
            return one_number(call_plain(self._metric.compute))

    def samples(self) -> None:
        return None


class _WholeMeter:
    """Keeps all outputs for a function that takes a whole part at once."""

    def __init__(self, function: MetricFunction) -> None:
        self._function = function
        self._outputs: list[Any] = []
        self._targets: list[Any] = []

    def update(self, outputs: Any, targets: Any) -> None:
        self._outputs.append(outputs)
        self._targets.append(targets)

    def compute(self) -> float:
        outputs, targets = self._joined(self._outputs), self._joined(self._targets)
        with guarded(failed_on("metric", self._function, outputs, targets), ConfigError):
            return one_number(call_plain(self._function, outputs, targets))

    def samples(self) -> None:
        return None

    def _joined(self, parts: list[Any]) -> Any:
        """Return the batches of a part as one: tensors along their first axis, lists one after the other."""
        if all(isinstance(part, list) for part in parts):
            return [item for part in parts for item in part]
        if not all(isinstance(part, Tensor) for part in parts):
            raise ConfigError(
                f'task.metric: "{reference(self._function)}" takes a whole part, and batches of '
                f"{described(parts[0])} cannot be joined. Give a class with update and compute."
            )
        return torch.cat(parts)


def one_number(value: object) -> float:
    """Return the value of a loss or a metric as a float.

    Raises:
        TypeError: if it is not one number.
    """
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"it returned {a_kind(value)}, expected one number")
    return float(value)


def failed_on(key: str, function: object, outputs: Any, targets: Any) -> str:
    """Return the start of the message for an error that a loss or a metric raised."""
    return (
        f'task.{key}: "{reference(function)}" failed on outputs {described(outputs)} and targets '
        f"{described(targets)}{f' ({targets.dtype})' if isinstance(targets, Tensor) else ''}"
    )
