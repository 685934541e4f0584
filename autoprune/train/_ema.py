"""The exponential moving average of a model's weights.

Before: `train.trainer` updates it after every step. After: its weights are evaluated and, at the end, kept.

    average = WeightAverage(model, decay=0.999)
    average.update(model)
    with average.swapped_in(model): score = evaluate(model, ...)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn


class WeightAverage:
    """Averages of all floating-point parameters and buffers (BatchNorm's statistics too).

    The decay of update t is min(decay, (1 + t) / (10 + t)), so that the first weights are soon forgotten.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.updates = 0
        self._averages = {name: tensor.clone() for name, tensor in _floating(model).items()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the averages towards the model's weights."""
        decay = min(self._decay, (1 + self.updates) / (10 + self.updates))
        self.updates += 1
        torch._foreach_lerp_(list(self._averages.values()), list(_floating(model).values()), 1 - decay)

    @contextlib.contextmanager
    def swapped_in(self, model: nn.Module) -> Iterator[None]:
        """Give the model the averages inside the block, and its own weights back after it."""
        own = {name: tensor.clone() for name, tensor in _floating(model).items()}
        self.copy_to(model)
        try:
            yield
        finally:
            _copy(own, model)

    def copy_to(self, model: nn.Module) -> None:
        """Overwrite the model's weights with the averages."""
        _copy(self._averages, model)

    def state(self) -> dict[str, object]:
        """Return what `restore` needs."""
        return {"updates": self.updates, "averages": dict(self._averages)}

    def restore(self, updates: int, averages: Mapping[str, Tensor]) -> None:
        """Set the averages to what `state` returned."""
        self.updates = updates
        for name, tensor in self._averages.items():
            tensor.copy_(averages[name])


def _floating(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: tensor.detach() for name, tensor in model.state_dict().items() if tensor.is_floating_point()
    }


@torch.no_grad()
def _copy(values: Mapping[str, Tensor], model: nn.Module) -> None:
    for name, tensor in _floating(model).items():
        tensor.copy_(values[name])
