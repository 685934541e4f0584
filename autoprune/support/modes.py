"""Train and eval modes of models.

Example:
    with modes_kept(model):
        set_training(model, False)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn


def set_training(model: nn.Module, training: bool) -> None:
    """Set every module to train or eval mode."""
    # Not model.train(): a model may override it to do more, for example to keep BatchNorm in eval mode.
    for module in model.modules():
        module.training = training


@contextlib.contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Restore the train or eval mode of every module at the end of the block."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def draws_kept(model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Restore torch's random states on the CPU and on the GPUs of a model after the block.

    Without the names of the GPUs, torch would start CUDA on all of them, which takes seconds and memory.
    """
    gpus = {tensor.device for tensor in (*model.parameters(), *model.buffers()) if tensor.is_cuda}
    return torch.random.fork_rng(devices=sorted(gpus, key=str))
