"""Rank the channels of a model with its training data, the loss of its task and its moments.

Example:
    ranked = rank(prunable, data, task, "taylor", seed=0, moments=lambda: measured)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from autoprune.criteria import Importance, Rule, choose_channels, find_criterion, importance
from autoprune.data import Batch, Loader, VisionData
from autoprune.errors import ConfigError
from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import unchanged
from autoprune.reconstruction import Moments
from autoprune.support.structures import moved
from autoprune.training import Task, main_output


def rank(
    prunable: Prunable,
    data: VisionData,
    task: Task,
    criterion: str,
    *,
    seed: int,
    moments: Callable[[], Moments] | None = None,
    widths: Mapping[str, int] | None = None,
    rule: Rule | None = None,
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
        rule: how residual streams are ranked, and whether the least or the most important channels go.
    """
    with unchanged(prunable.model):  # a forward pass may leave tensors with a history on it
        batches = _Batches(data.train, seed)
        loss = _loss_for(criterion, task)
        return importance(prunable, criterion, batches, loss, seed, moments, widths, rule)


def choose(
    prunable: Prunable,
    data: VisionData,
    task: Task,
    criterion: str,
    widths: Mapping[str, int],
    *,
    seed: int,
    moments: Callable[[], Moments] | None = None,
    rule: Rule | None = None,
    done: Callable[[int, int], None],
) -> Plan:
    """Choose the channels to keep at given widths. The arguments are those of `rank`.

    A greedy ranking calls `done` with (groups done, all groups).
    """
    loss = _loss_for(criterion, task)
    reads_moments = find_criterion(criterion).needs == "moments"
    batches = _Batches(data.unchanged_train if reads_moments else data.train, seed)
    with unchanged(prunable.model):
        return choose_channels(prunable, widths, criterion, batches, loss, seed, moments, rule, done)


@dataclass(frozen=True)
class _Batches:
    """Training batches on the CPU, which a greedy ranking reads once for each group."""

    loader: Loader
    seed: int

    def __iter__(self) -> Iterator[Batch]:
        for inputs, targets in self.loader.batches(self.seed, 0):
            yield moved(inputs, "cpu"), moved(targets, "cpu")


def _loss_for(criterion: str, task: Task) -> Callable[[Any, Tensor], Tensor]:
    """Return the loss of a task.

    Raises:
        ConfigError: the criterion reads gradients, and the model or a step of the user computes the loss.
    """
    if find_criterion(criterion).needs == "gradients" and not task.has_loss_function:
        raise ConfigError(
            f'criterion "{criterion}": reads gradients of a loss function of outputs and targets, and here '
            'the model or task.train_step computes the loss. Choose another, such as "obs" or "activation".'
        )
    return loss_of(task)


def loss_of(task: Task) -> Callable[[Any, Tensor], Tensor]:
    """Return the loss of a model's whole outputs, which may have auxiliary ones."""

    def loss(outputs: Any, targets: Tensor) -> Tensor:
        return task.loss(main_output(outputs), targets)

    return loss
