"""Training: the full one with its checkpoints, the short finetune of a trial, recalibration and evaluation.

Before: a model, data, a Setting and a Task. After: `score` (short finetunes) and `pipeline` (full trainings).

    result = fit(model, data, Schedule(epochs=30), setting, Task(), seed=0, checkpoint=Path("state.pt"))
    test_accuracy = evaluate(model, data.test, Task(), setting)
"""

from __future__ import annotations

from autoprune.train.evaluation import evaluate, recalibrate
from autoprune.train.loop import EpochRecord, FitResult, fit
from autoprune.train.schedule import OPTIMIZERS, SHAPES, Schedule, learning_rate_at
from autoprune.train.trainer import Subnets, Trainer
from autoprune.train.training_state import weights_hash

__all__ = [
    "OPTIMIZERS",
    "SHAPES",
    "EpochRecord",
    "FitResult",
    "Schedule",
    "Subnets",
    "Trainer",
    "evaluate",
    "fit",
    "learning_rate_at",
    "recalibrate",
    "weights_hash",
]
