"""Evaluate a model on a part of the data, and recalibrate its BatchNorm statistics before that.

Example:
    recalibrate(small, data.train, batches=20, setting=setting, seed=0)
    accuracy = evaluate(small, data.val, Task(), setting)
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.data import Batch, Loader, endless
from autoprune.errors import ConfigError, DataError, TrialError
from autoprune.execution import Setting
from autoprune.support.modes import modes_kept
from autoprune.support.structures import mapped, moved, tensors_in
from autoprune.support.usercode import call_plain, forward, guarded
from autoprune.support.userfunction import reference
from autoprune.training._metrics import one_number
from autoprune.training.task import Task, find_output, main_output


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metric of a model on a part of the data.

    Attributes:
        score: the metric.
        samples: the value of each sample [n] on the CPU, whose mean is the score, or None if the metric is
            not known to be such a mean.
    """

    score: float
    samples: Tensor | None

    @property
    def standard_error(self) -> float | None:
        """The standard error of the score over the draw of samples, or None if it is not known."""
        if self.samples is None or len(self.samples) < 2:
            return None
        return float(self.samples.double().std()) / math.sqrt(len(self.samples))


def evaluate(model: nn.Module, loader: Loader, task: Task, setting: Setting) -> float:
    """Return the task's metric over a whole part of the data. See `measure`."""
    return measure(model, loader, task, setting).score


def measure(model: nn.Module, loader: Loader, task: Task, setting: Setting) -> Evaluation:
    """Measure the task's metric over a whole part of the data, without changing the model.

    If the metric is a plain function, the outputs of the whole part are kept in memory (see `meter_of`). If
    it compares with the dense model, that model runs on the same inputs.

    Raises:
        DataError: if the part is empty.
        TrialError: if an output is not finite.
        ConfigError: if the metric raises an error or does not return one number.
    """
    setting.place(model)
    if task.evaluate is not None:
        return _by_user(model, loader, task, setting)
    meter = task.meter()
    dense = _placed_dense(task, setting) if task.compares else None
    batches = 0
    with modes_kept(model):
        model.eval()
        for inputs, targets in loader:
            with torch.no_grad(), setting.autocast():
                outputs = _in_single(metric_output(forward(model, setting.arrange(inputs))))
            if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors_in(outputs)):
                raise TrialError(f"diverged: the model's outputs are not finite ({setting.label}).")
            if dense is not None:
                with torch.no_grad(), setting.autocast():
                    targets = main_output(forward(dense, setting.arrange(inputs))).float()
            meter.update(outputs, task.metric_targets(moved(targets, setting.device)))
            batches += 1
    if not batches:
        raise DataError("data: the part to evaluate on is empty. Give it more data.")
    return Evaluation(meter.compute(), meter.samples())


def metric_output(outputs: object) -> Any:
    """Return the part of a model's output that a metric reads: its main tensor, or else all of it."""
    found = find_output(outputs)
    return outputs if found is None else found


def _in_single(outputs: Any) -> Any:
    return mapped(lambda tensor: tensor.float() if tensor.is_floating_point() else tensor, outputs)


@dataclass(frozen=True)
class _Arranged:
    """A part of the data on the device and in the layout of a setting, as a user's evaluation reads it."""

    loader: Loader
    setting: Setting

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.loader:
            yield self.setting.arrange(inputs), moved(targets, self.setting.device)


def _by_user(model: nn.Module, loader: Loader, task: Task, setting: Setting) -> Evaluation:
    """Return the score of the user's own evaluation.

    Raises:
        ConfigError: if it raises an error, or returns neither a number nor a dict that holds the score.
    """
    function: Any = task.evaluate
    where = f'task.evaluate: "{reference(function)}"'
    with modes_kept(model), guarded(f"{where} failed", ConfigError, memory_passes=True):
        model.eval()
        with torch.no_grad(), setting.autocast():
            found: Any = call_plain(function, model, _Arranged(loader, setting))
        if not isinstance(found, Mapping):
            return Evaluation(one_number(found), None)
        if task.score_name not in found:
            raise ConfigError(
                f'{where} returned {", ".join(map(str, found)) or "nothing"}, expected "{task.score_name}" '
                "among these. Set task.metric to the name of the score."
            )
        samples = found.get("samples")
        values = None if samples is None else torch.as_tensor(samples).detach().cpu().float()
        return Evaluation(one_number(found[task.score_name]), values)


def _placed_dense(task: Task, setting: Setting) -> nn.Module:
    """Return a copy of the task's dense model, since placing it may change its device and layout."""
    if task.dense is None:
        raise ConfigError('task.metric: "kl" compares with the dense model, and the task has none.')
    return setting.place(copy.deepcopy(task.dense)).eval()


def recalibrate(model: nn.Module, loader: Loader, batches: int, setting: Setting, *, seed: int = 0) -> None:
    """Measure BatchNorm's running statistics again, as plain means over `batches` batches of the loader.

    Only the statistics change. The BatchNorm layers run in train mode and all other modules in eval mode.
    Modes and momenta are restored at the end. A layer that no batch reaches keeps its statistics.

    Args:
        model: the model, whose statistics change in place.
        loader: the training part.
        batches: number of batches to use, from epoch 0 on. They may span several epochs.
        setting: how the forward passes run.
        seed: seed that chooses the batches.

    Reference:
        Li et al., "EagleEye", 2020, section 3.3 (adaptive batch normalization).
    """
    layers = [
        layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]
    if not layers or batches < 1:
        return
    setting.place(model)
    before = [[tensor.clone() for tensor in layer.buffers()] for layer in layers]
    momenta = [layer.momentum for layer in layers]
    with modes_kept(model), torch.no_grad(), setting.autocast():
        model.eval()
        try:
            for layer in layers:
                layer.reset_running_stats()
                layer.momentum = None  # an equally weighted mean over all batches
                layer.train()
            for inputs, _ in itertools.islice(endless(loader, seed), batches):
                forward(model, setting.arrange(inputs))
        finally:
            for layer, momentum, kept in zip(layers, momenta, before, strict=True):
                layer.momentum = momentum
                if layer.num_batches_tracked is not None and int(layer.num_batches_tracked) == 0:
                    for tensor, old in zip(layer.buffers(), kept, strict=True):
                        tensor.copy_(old)
