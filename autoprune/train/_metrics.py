"""Metrics, which a search raises, measured batch by batch if a metric allows it.

meter = meter_of(accuracy)
for outputs, targets in batches:
meter.update(outputs, targets)
meter.compute()
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Protocol, SupportsFloat, cast

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.support.usercode import call_plain, guarded
from autoprune.support.userfunction import reference

MetricFunction = Callable[[Tensor, Tensor], "Tensor | float"]
"""(outputs [n, ...], targets [n, ...]) of one whole part of the data -> one number, the higher the better."""


class StreamedMetric(Protocol):
    """A metric that is fed batch by batch, as those of torchmetrics are. It may have `reset()`, too."""

    def update(self, outputs: Tensor, targets: Tensor, /) -> object:
        """Take in outputs [n, ...] and targets [n, ...] of one batch."""

    def compute(self) -> Tensor | float:
        """Return one number for all batches so far, the higher the better."""


Metric = MetricFunction | StreamedMetric | type[StreamedMetric]
"""A function of a whole part, an object that is fed batch by batch, or its class, made without arguments."""


class Meter(Protocol):
    """Measures one part of the data from its batches."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        """Take in one batch.

        Raises:
            ConfigError: the metric raises.
        """

    def compute(self) -> float:
        """Return the metric of all batches so far, of which there must be one.

        Raises:
            ConfigError: the metric raises, or gives something else than one number.
        """


def accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share, in [0, 1], of the n rows, times positions, whose largest logit is the label's."""
    return _is_largest(outputs, targets).double().mean()


def top5(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the share, in [0, 1], of the n rows whose label is among the five largest logits."""
    return _is_among_five(outputs, targets).double().mean()


def _is_largest(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.argmax(dim=1) == targets


def _is_among_five(outputs: Tensor, targets: Tensor) -> Tensor:
    best = outputs.topk(min(5, outputs.shape[1]), dim=1).indices
    return (best == targets[:, None]).any(dim=1)


METRICS: Mapping[str, MetricFunction] = {"accuracy": accuracy, "top5": top5}

_HITS = ((accuracy, _is_largest), (top5, _is_among_five))
"""Metrics that are shares, with the hits that they count: those can be summed batch by batch."""


def meter_of(metric: Metric) -> Meter:
    """Return a fresh meter.

    A function of a whole part is no mean of its values on batches in general, so its meter keeps all outputs.
    Those of METRICS, and objects with `update` and `compute`, keep sums only.

    Raises:
        ConfigError: the metric is a class that cannot be made without arguments.
    """
    for share, hits in _HITS:
        if metric is share:  # not by its name, which a function of the user's may have too
            return _ShareMeter(share, hits)
    if hasattr(metric, "update") and hasattr(metric, "compute"):
        return _StreamMeter(metric)
    return _WholeMeter(metric)


class _ShareMeter:
    """Counts hits on the device of the outputs."""

    def __init__(self, share: MetricFunction, hits: Callable[[Tensor, Tensor], Tensor]) -> None:
        self._share = share
        self._hits = hits
        self._right: Tensor | int = 0
        self._all = 0

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        with guarded(failed_on("metric", self._share, outputs, targets), ConfigError):
            hits = self._hits(outputs, targets)
        # The sum stays on the device: reading it would make every batch wait for the one before.
        self._right = self._right + hits.sum()
        self._all += hits.numel()

    def compute(self) -> float:
        return int(self._right) / self._all


class _StreamMeter:
    """Feeds a copy of the user's object, so that no two parts share its sums."""

    def __init__(self, metric: object) -> None:
        where = f'task.metric: "{reference(metric)}" cannot be made without arguments and reset'
        with guarded(where, ConfigError):
            fresh = metric() if isinstance(metric, type) else copy.deepcopy(metric)
            if hasattr(fresh, "reset"):
                fresh.reset()
        self._metric = cast(StreamedMetric, fresh)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        if isinstance(self._metric, nn.Module):  # torchmetrics keeps its sums in buffers
            self._metric.to(outputs.device)
        with guarded(failed_on("metric", self._metric, outputs, targets), ConfigError):
            call_plain(self._metric.update, outputs, targets)

    def compute(self) -> float:
        where = f'task.metric: "{reference(self._metric)}" failed to compute a number'
        with guarded(where, ConfigError):
            return one_number(call_plain(self._metric.compute))


class _WholeMeter:
    """Keeps all outputs for a function that is given the whole part at once."""

    def __init__(self, function: MetricFunction) -> None:
        self._function = function
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self._outputs.append(outputs)
        self._targets.append(targets)

    def compute(self) -> float:
        outputs, targets = torch.cat(self._outputs), torch.cat(self._targets)
        with guarded(failed_on("metric", self._function, outputs, targets), ConfigError):
            return one_number(call_plain(self._function, outputs, targets))


def one_number(value: object) -> float:
    """Return the value of a loss or a metric as a float.

    Raises:
        TypeError: it is not one number.
    """
    if not isinstance(value, SupportsFloat):
        raise TypeError(f"it gave a {type(value).__name__}, expected one number")
    return float(value)


def failed_on(key: str, function: object, outputs: Tensor, targets: Tensor) -> str:
    """Return the opening of an error that a loss or a metric raised on a batch or a part."""
    return (
        f'task.{key}: "{reference(function)}" failed on outputs {tuple(outputs.shape)} and targets '
        f"{tuple(targets.shape)} ({targets.dtype})"
    )
