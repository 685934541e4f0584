"""The dense model, its data and its task, as a config names them: where every verb begins.

Before: a settled config; after: `trace`, training and scoring.

    dense = load_dense(config)
    prunable = trace(dense.model, dense.example_inputs)
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autoprune.data import VisionData, load
from autoprune.precision import resolve_device
from autoprune.settings import RunConfig
from autoprune.task import Task, make_task
from autoprune.zoo import load_checkpoint, make_model


@dataclass(frozen=True)
class Dense:
    """The dense model with what it is trained and measured on.

    Attributes:
        model: on the CPU, in evaluation mode.
        data: its parts live on `device`.
        task: loss and metric.
        device: torch's name of it.
    """

    model: nn.Module
    data: VisionData
    task: Task
    device: str

    @property
    def example_inputs(self) -> Tensor:
        """Zeros [1, C, H, W] of the data's shape."""
        return torch.zeros(1, *self.data.input_shape)


def load_data(config: RunConfig, device: str) -> VisionData:
    """Load the data of a config's [data] section onto a device."""
    settings = config.data
    return load(
        settings.name or settings.loaders or "",
        folder=settings.folder,
        batch_size=settings.batch_size,
        val_fraction=settings.val_fraction,
        seed=settings.seed,
        device=device,
        augment=settings.augment,
        image_size=settings.image_size,
        workers=settings.workers,
        validation=settings.validation,
    )


def make_architecture(config: RunConfig, classes: int, in_channels: int) -> nn.Module:
    """Build the dense architecture of a config's [model] section, without a checkpoint's weights."""
    settings = config.model
    return make_model(settings.name or settings.factory or "", classes, in_channels, settings.weights).eval()


def load_dense(config: RunConfig, *, trained: bool = True) -> Dense:
    """Build the dense model, and load its weights and data.

    Args:
        config: settled, so that a model without weights of its own names a checkpoint.
        trained: whether the checkpoint is read; without it the weights are fresh.

    Raises:
        ConfigError: an unknown name, or no such device.
        CheckpointError: the checkpoint is missing, corrupt or of another architecture.
        DataError: the data are missing or unusable.
    """
    device = resolve_device(config.search.device)
    task = make_task(config.task.loss, config.task.metric)
    data = load_data(config, device)
    torch.manual_seed(config.train.seed)
    model = make_architecture(config, data.classes, data.input_shape[0])
    if trained and config.model.checkpoint is not None:
        load_checkpoint(model, config.model.checkpoint)
    return Dense(model, data, task, device)
