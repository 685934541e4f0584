"""Rank the channels of a model with its training data, the loss of its task and its moments.

Example:
    ranked = rank(prunable, data, task, "taylor", seed=0, moments=lambda: measured)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from autoprune.criteria import Importance, importance
from autoprune.data import VisionData
from autoprune.graph import Prunable
from autoprune.graph.capture import unchanged
from autoprune.reconstruction import Moments
from autoprune.train import Task, main_output


def rank(
    prunable: Prunable,
    data: VisionData,
    task: Task,
    criterion: str,
    *,
    seed: int,
    moments: Callable[[], Moments] | None = None,
    widths: Mapping[str, int] | None = None,
) -> Importance:
    """Measure the importance of all channels.

    Args:
        prunable: the traced model.
        data: a criterion draws as many training batches as it needs.
        task: the task with the loss, for criteria that read gradients.
        criterion: name of the criterion.
        seed: of every draw.
        moments: returns the moments of the model, for criteria that read them.
        widths: {group name: channels that will be kept}, if the ranking serves these widths alone.
    """

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return task.loss(main_output(outputs), targets)

    batches = ((inputs.cpu(), targets.cpu()) for inputs, targets in data.train.batches(seed, 0))
    with unchanged(prunable.model):  # a forward pass may leave tensors with a history on it
        return importance(prunable, criterion, batches, loss, seed, moments, widths)
