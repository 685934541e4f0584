"""Knowledge distillation: a student follows the softened outputs of its teacher.

Before: `train.trainer` gives both models' logits of one batch. After: its loss is part of the training's.

    loss = distillation_loss(student_logits, teacher_logits, temperature=4.0)
"""

from __future__ import annotations

import torch.nn.functional as functional
from torch import Tensor


def distillation_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return temperature^2 * KL(teacher || student), mean over the batch, of logits [n, classes].

    Reference: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, section 2.
    """
    divergence = functional.kl_div(
        functional.log_softmax(student.float() / temperature, dim=1),
        functional.log_softmax(teacher.float() / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2
