"""Recalibrates BatchNorm of a model that was changed.

Example:
    small = recalibrate(rebuild(prunable, plan), train_loader)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autoprune.data import VisionData
from autoprune.errors import DataError
from autoprune.execution import Setting
from autoprune.run._resolving.dense import own_copy
from autoprune.support.usercode import entry
from autoprune.training import recalibrate as recalibrate_in_place


@dataclass(frozen=True)
class _Inputs:
    """A loader of inputs without targets."""

    inputs: list[Tensor]

    @property
    def samples(self) -> int:
        return sum(map(len, self.inputs))

    def __len__(self) -> int:
        return len(self.inputs)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return self.batches(0, 0)

    def batches(self, seed: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        return ((inputs, torch.empty(0)) for inputs in self.inputs)


@entry(model=nn.Module)
def recalibrate(model: nn.Module, data: VisionData | Iterable[Any], *, batches: int = 20) -> nn.Module:
    """Return a copy of a model whose BatchNorm statistics are measured again, as plain means over batches.

    A rebuilt model has the statistics of the dense model, which no longer fit its narrower layers. Only the
    running statistics change, and no weight. The model itself is not changed.

    Args:
        model: the model, on any device.
        data: the result of `autoprune.data.load`, of which the training part is used, or batches of images
            [n, C, H, W], each the images alone or a tuple that begins with them.
        batches: number of batches to use, from the first one on. All, if there are fewer.

    Returns:
        The copy, on the device and in the mode of the model.

    Raises:
        DataError: there is no batch, or a batch holds no tensor.
        ConfigError: the model cannot be copied, or fails on a batch.

    Reference:
        Li et al., "EagleEye", 2020, section 3.3 (adaptive batch normalization).

    Example:
        small = autoprune.recalibrate(autoprune.rebuild(prunable, plan), train_loader, batches=10)
    """
    source = data.train if isinstance(data, VisionData) else data
    inputs = [_inputs_of(batch) for batch in itertools.islice(source, batches)]
    if not inputs:
        raise DataError(f"recalibrate: got no batch from the data and batches = {batches}, expected some.")
    device = next((str(leaf.device) for leaf in model.parameters()), "cpu")
    copied = own_copy(model)
    recalibrate_in_place(copied, _Inputs(inputs), len(inputs), Setting(device=device))
    return copied


def _inputs_of(batch: object) -> Tensor:
    inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
    if not isinstance(inputs, Tensor):
        raise DataError(
            f"recalibrate: got a batch of {type(inputs).__name__}, expected a tensor, or a tuple that begins "
            "with one."
        )
    return inputs
