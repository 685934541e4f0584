"""Rebuilds the model of a trial as the search scored it, and retrains it.

Example:
    cut = cut_trial(run, study, study.best())
    val_score = retrain(run, cut.small, study.best(), Path("finetune.training"))
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from autoprune.criteria import plan_from_importance
from autoprune.errors import TrialError
from autoprune.flow import epoch_reporter, naming_learning_rate
from autoprune.graph import Cost, Plan
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import repair_closed
from autoprune.run._moments import moments_of, prepare_moments
from autoprune.run._run import Run
from autoprune.run._scoring import with_weights
from autoprune.run._stored_config import stored_ranking
from autoprune.run._supernet_training import known_supernet
from autoprune.score import calibrate
from autoprune.study import SearchStudy, TrialRecord
from autoprune.support.events import Stage
from autoprune.train import evaluate, fit


@dataclass(frozen=True)
class CutTrial:
    """A trial's model before its finetune.

    Attributes:
        small: the model.
        plan: the plan by which it was cut.
        cost: the cost of the model.
        share: its MACs as a share of the dense model's.
    """

    small: nn.Module
    plan: Plan
    cost: Cost
    share: float


def cut_trial(run: Run, study: SearchStudy, record: TrialRecord) -> CutTrial:
    """Cut a trial's model from the same weights as in the search, and repair it if the search repairs.

    Raises:
        CheckpointError: the file of the supernet or of the moments is missing.
    """
    plan = plan_from_importance(run.prunable, record.widths, stored_ranking(study, run.prunable, record))
    cut_from = with_weights(run.prunable, known_supernet(run, study))
    small = rebuild(cut_from, plan)
    prepared = prepare_moments(study, moments_of(run, cut_from))
    if prepared is not None:
        small = repair_closed(cut_from, plan, small, prepared[1]).model
    widths = np.array([[record.widths[name] for name in run.space.groups]], dtype=np.int64)
    cost = run.cost(widths).one()
    return CutTrial(small, plan, cost, int(cost.macs) / int(run.dense_cost.macs))


def retrain(run: Run, small: nn.Module, record: TrialRecord, state: Path) -> float:
    """Train the model of a trial in place and return its validation score.

    Args:
        run: the resolved run.
        small: the model.
        record: the record of the trial.
        state: the file that keeps the state of the training. If it exists, the training resumes from it.

    Raises:
        TrialError: the training diverged, or the score is not finite.
    """
    score = _trained(run, small, record, state)
    if not math.isfinite(score):  # the user may have fixed the metric after the last epoch
        score = evaluate(small, run.dense.data.val, run.dense.task, run.setting)
    if not math.isfinite(score):
        raise TrialError(
            f"finetune: task.metric is {score} on the validation part after the training, expected a finite "
            "number; fix the metric and run the same command again: the trained weights are kept."
        )
    return score


def _trained(run: Run, small: nn.Module, record: TrialRecord, state: Path) -> float:
    settings, dense, setting = run.spec.finetune, run.dense, run.setting
    if settings.epochs == 0:
        batches = run.spec.score.calibration_batches
        calibrate(small, dense.data, batches, setting, seed=record.seed or 0)
        return evaluate(small, dense.data.val, dense.task, setting)
    with naming_learning_rate(settings):
        return fit(
            small,
            dense.data,
            run.spec.finetune_schedule,
            setting,
            dense.task,
            seed=settings.seed,
            teacher=copy.deepcopy(dense.model) if settings.teacher == "dense" else None,
            on_epoch=epoch_reporter(settings.epochs, run.watch),
            checkpoint=state,
        ).score


def score_on_test(run: Run, model: nn.Module) -> float | None:
    """Return the score of a model on the test part, or None if there is no such part or no finite score."""
    dense = run.dense
    if dense.data.test is None:
        return None
    score = evaluate(model, dense.data.test, dense.task, run.setting)
    if math.isfinite(score):
        return score
    run.watch(Stage(f"warning: task.metric is {score} on the test part, so no test score is kept"))
    return None
