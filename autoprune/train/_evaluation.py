"""Measuring a model: its metric on a part of the data, after its BatchNorm statistics fit its weights.

recalibrate(small, data.train, batches=20, setting=setting, seed=0)
accuracy = evaluate(small, data.val, Task(), setting)
"""

from __future__ import annotations

import itertools

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.data import Loader, endless
from autoprune.errors import DataError, TrialError
from autoprune.execution import Setting
from autoprune.support.modes import modes_kept
from autoprune.support.usercode import forward
from autoprune.train._metrics import meter_of
from autoprune.train.task import Task, main_output


def evaluate(model: nn.Module, loader: Loader, task: Task, setting: Setting) -> float:
    """Return the task's metric over all of a part; the model's modes and weights stay as they are.

    Outputs are kept for the whole part only if the metric is a function of all of them: see
    `autoprune.train._metrics`.

    Raises:
        DataError: the part is empty.
        TrialError: the outputs are not finite.
        ConfigError: the metric raises, or gives something else than one number.
    """
    setting.place(model)
    meter = meter_of(task.metric)
    batches = 0
    with modes_kept(model):
        model.eval()
        for inputs, targets in loader:
            with torch.no_grad(), setting.autocast():
                outputs = main_output(forward(model, setting.arrange(inputs))).float()
            if not bool(torch.isfinite(outputs).all()):
                raise TrialError(f"diverged: the model's outputs are not finite ({setting.label}).")
            meter.update(outputs, targets.to(setting.device, non_blocking=True))
            batches += 1
    if not batches:
        raise DataError("data: the part to evaluate on is empty; give it more data.")
    return meter.compute()


def recalibrate(model: nn.Module, loader: Loader, batches: int, setting: Setting, *, seed: int = 0) -> None:
    """Measure BatchNorm's running statistics again, as plain means over `batches` batches of the loader.

    Only the statistics change: BatchNorm layers alone run in train mode, no gradient is taken, and modes
    and momentum are given back. A layer that no batch reaches keeps its statistics.

    Reference: Li et al., "EagleEye", 2020, section 3.3 (adaptive batch normalization).

    Args:
        model: changed in place.
        loader: the training part.
        batches: how many to use, from epoch 0 under `seed`; more than an epoch goes on with the next.
        setting: how the forward passes run.
        seed: chooses the batches.
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
                layer.momentum = None
                layer.train()
            for inputs, _ in itertools.islice(endless(loader, seed), batches):
                forward(model, setting.arrange(inputs))
        finally:
            for layer, momentum, kept in zip(layers, momenta, before, strict=True):
                layer.momentum = momentum
                if layer.num_batches_tracked is not None and int(layer.num_batches_tracked) == 0:
                    for tensor, old in zip(layer.buffers(), kept, strict=True):
                        tensor.copy_(old)
