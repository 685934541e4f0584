"""Train and eval modes of models.

with modes_kept(model):
set_training(model, False)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


def set_training(model: nn.Module, training: bool) -> None:
    """Set the mode of every module.

    Not model.train(): a model may override it to do more, for example to keep BatchNorm in eval mode.
    """
    for module in model.modules():
        module.training = training


@contextlib.contextmanager
def modes_kept(*models: nn.Module) -> Iterator[None]:
    """Give every module its train or eval mode back after the block."""
    modes = [(module, module.training) for model in models for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
