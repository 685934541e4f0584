"""Knowledge distillation: the loss of a student that follows the outputs of a teacher.

Example:
    distillation = Distillation(task.loss, temperature=4.0)
    loss = distillation(student_outputs, teacher_outputs, targets)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.execution import ALONE, Group
from autoprune.support.structures import described
from autoprune.training.task import LossFunction, cross_entropy, find_output

_WITHOUT = (
    'Train without a teacher: set finetune.teacher and score.teacher to "none", and use no rung "supernet".'
)
NO_OUTPUTS = f"teacher: in training mode the task gives a loss without outputs to distill. {_WITHOUT}"


@dataclass(frozen=True)
class Distillation:
    """The loss of a student that follows its teacher.

    For class logits [n, classes, ...], the loss is `distillation_loss`. For all other outputs, such as the
    values of a regression or the logits of a binary classification, it is the mean squared error to the
    teacher's outputs. This error is multiplied by the task's loss over the squared error to the targets. So
    `distill_weight` has the same effect at every scale of the task's loss. For `mse_loss`, the factor is 1.

    Args:
        loss: the task's loss.
        temperature: temperature of the softmax of class logits. Other outputs have none.
        group: the processes that train together. The ratio is that of their whole batch.

    Reference:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2. Section 2.1 shows that
        matching logits is the limit of high temperatures.
    """

    loss: LossFunction
    temperature: float
    group: Group = ALONE

    def __call__(self, student: Tensor, teacher: Tensor, targets: Any) -> Tensor:
        """Return the loss of one batch, a scalar.

        Args:
            student: outputs of the student.
            teacher: outputs of the teacher on the same inputs, without gradient.
            targets: targets of the batch, which determine the kind of outputs and the scale of the loss.

        Raises:
            ConfigError: if outputs and targets are neither class logits and labels nor of the same shape.
        """
        if holds_classes(self.loss, student, targets):
            return distillation_loss(student, teacher, self.temperature)
        targets = find_output(targets)
        with torch.no_grad():
            outputs = student.detach().float()
            error = functional.mse_loss(outputs, targets.reshape(outputs.shape).float())
            cost = self.loss(outputs, targets).float()
            cost, error = self.group.mean(torch.stack([cost.reshape(()), error]), len(outputs))
            cost = cost.abs()
            price = torch.where(error > 0, cost / error, 1.0)
        return price * functional.mse_loss(student.float(), teacher.float())


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return temperature^2 * KL(teacher || student) of logits [n, classes, ...], mean over n and positions.

    Reference:
        Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """
    divergence = functional.kl_div(
        functional.log_softmax(student.float() / temperature, dim=1),
        functional.log_softmax(teacher.float() / temperature, dim=1),
        reduction="none",
        log_target=True,
    )
    # Gradients of softened logits shrink with 1 / temperature^2. The factor makes up for it.
    return divergence.sum(dim=1).mean() * temperature**2


def holds_classes(loss: LossFunction, outputs: Tensor, targets: Any) -> bool:
    """Return whether axis 1 of the outputs holds class logits, judged by the loss and one batch.

    Raises:
        ConfigError: if outputs and targets are neither class logits and labels nor of the same shape.
    """
    found = find_output(targets)
    if found is None:
        raise ConfigError(f"teacher: targets {described(targets)} cannot be distilled with. {_WITHOUT}")
    targets = found
    if outputs.ndim >= 2 and outputs.shape[1] > 1:
        is_cross_entropy = loss in (cross_entropy, functional.cross_entropy)
        if is_cross_entropy or isinstance(loss, nn.CrossEntropyLoss):
            return True
        labelled = _without_ones(torch.Size((outputs.shape[0], *outputs.shape[2:])))
        if not targets.is_floating_point() and _without_ones(targets.shape) == labelled:
            return True
    if _without_ones(outputs.shape) != _without_ones(targets.shape):
        raise ConfigError(
            f"teacher: outputs {tuple(outputs.shape)} cannot be distilled with targets "
            f"{tuple(targets.shape)} of {targets.dtype}. Expected class logits (n, classes, ...) with "
            f"integer targets (n, ...), or targets of the outputs' shape. {_WITHOUT}"
        )
    return False


def _without_ones(shape: torch.Size) -> tuple[int, ...]:
    return (*shape[:1], *(size for size in shape[1:] if size != 1))
