"""Hooks act around each step of a training, as a penalty on scales or a mask on weights does.

Example:
    class Shrink(StepHook):
        identity = "shrink"

        def after_step(self, model: nn.Module, moment: Moment) -> None:
            model.fc.weight.data.mul_(1 - 1e-4 * moment.learning_rate)

    fit(model, data, schedule, setting, Task(), seed=0, hooks=(Shrink(),))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass(frozen=True)
class Moment:
    """One step of a training.

    Attributes:
        step: number of the step, from 0.
        total: number of steps of the whole training.
        learning_rate: of this step.
    """

    step: int
    total: int
    learning_rate: float


class StepHook:
    """Acts on a model around each step of its training. Every method may be left as it is.

    Attributes:
        identity: everything that the hook does follows from this text and the step. It is a part of the
            identity of a training, so a stopped training goes on under an equal hook only.
    """

    identity: str = ""

    def begin(self, model: nn.Module) -> None:
        """Prepare for a training of `model`, which is on its device. Its weights may be changed."""

    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        """Change the gradients. They are those of the whole batch, unscaled."""

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        """Change the weights after the optimizer did."""

    def after_average(self, average: nn.Module, moment: Moment) -> None:
        """Change the moving average of the weights, if the schedule keeps one, after the step entered it."""

    def state(self) -> dict[str, Any]:
        """Return the hook's state as tensors, numbers, strings, lists and dicts."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to the moment at which `state` was taken. The model is already restored."""
