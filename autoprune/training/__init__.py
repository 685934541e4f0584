"""Train a model fully or for a few steps, recalibrate its BatchNorm statistics, and evaluate it.

Example:
    result = fit(model, data, Schedule(epochs=30), setting, Task(), seed=0, checkpoint=Path("state.pt"))
    test_accuracy = evaluate(model, data.test, Task(), setting)
"""

from __future__ import annotations

from autoprune.training._distill import NO_OUTPUTS, holds_classes
from autoprune.training._evaluation import Evaluation, evaluate, measure, metric_output, recalibrate
from autoprune.training._fastest import Choice, fastest_setting
from autoprune.training._hooks import Moment, StepHook
from autoprune.training._loop import EpochRecord, FitResult, fit
from autoprune.training._metrics import divergence
from autoprune.training._schedule import OPTIMIZERS, SHAPES, Schedule, learning_rate_at
from autoprune.training._trainer import Subnets, Trainer
from autoprune.training._training_state import weights_hash
from autoprune.training.task import (
    EvaluateFunction,
    Task,
    TrainStep,
    cross_entropy,
    find_output,
    main_output,
    make_task,
)

__all__ = [
    "NO_OUTPUTS",
    "OPTIMIZERS",
    "SHAPES",
    "Choice",
    "EpochRecord",
    "EvaluateFunction",
    "Evaluation",
    "FitResult",
    "Moment",
    "Schedule",
    "StepHook",
    "Subnets",
    "Task",
    "TrainStep",
    "Trainer",
    "cross_entropy",
    "divergence",
    "evaluate",
    "fastest_setting",
    "find_output",
    "fit",
    "holds_classes",
    "learning_rate_at",
    "main_output",
    "make_task",
    "measure",
    "metric_output",
    "recalibrate",
    "weights_hash",
]
