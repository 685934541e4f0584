"""Rebuilds the model of a trial as the search scored it, and retrains it.

Example:
    cut = cut_trial(run, study, study.best())
    val_score, epochs = train_fully(run, cut.small, study.best())
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import nn

from autoprune.criteria import plan_from_importance
from autoprune.errors import TrialError
from autoprune.graph import Cost, Plan
from autoprune.run._measuring.moments import moments_of, prepare_moments
from autoprune.run._measuring.supernet_training import known_supernet
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.stored_config import stored_ranking
from autoprune.run._trials.retraining import retrain, training_state
from autoprune.run._trials.scoring import with_weights
from autoprune.score import calibrate, cut_model
from autoprune.study import SearchStudy, TrialRecord
from autoprune.training import EpochRecord, evaluate


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


def plan_of_trial(run: Run, study: SearchStudy, record: TrialRecord) -> Plan:
    """Return the channels that the model of a trial keeps."""
    return plan_from_importance(run.prunable, record.widths, stored_ranking(study, run.prunable, record))


def cut_trial(run: Run, study: SearchStudy, record: TrialRecord) -> CutTrial:
    """Cut a trial's model from the same weights as in the search, and repair it if the search repairs.

    Raises:
        CheckpointError: the file of the supernet or of the moments is missing.
    """
    plan = plan_of_trial(run, study, record)
    cut_from = with_weights(run.prunable, known_supernet(run, study))
    prepared = prepare_moments(study, moments_of(run, cut_from))
    small = cut_model(cut_from, plan, None if prepared is None else prepared[1])
    widths = np.array([[record.widths[name] for name in run.space.groups]], dtype=np.int64)
    cost = run.cost(widths).one()
    return CutTrial(small, plan, cost, int(cost.macs) / int(run.dense_cost.macs))


def train_fully(run: Run, small: nn.Module, record: TrialRecord) -> tuple[float, tuple[EpochRecord, ...]]:
    """Train the model of a trial in place and return its validation score, and the epochs of the training.

    A training that was stopped, or that a race has begun or finished, continues from its state.

    Raises:
        TrialError: the training diverged, or the score is not finite.
    """
    score, epochs = _trained(run, small, record)
    if not math.isfinite(score):  # the user may have fixed the metric after the last epoch
        score = evaluate(small, run.dense.data.val, run.dense.task, run.setting)
    if not math.isfinite(score):
        raise TrialError(
            f"finetune: task.metric is {score} on the validation part after the training, expected a finite "
            "number. Fix the metric and run the same command again: the trained weights are kept."
        )
    return score, epochs


def _trained(run: Run, small: nn.Module, record: TrialRecord) -> tuple[float, tuple[EpochRecord, ...]]:
    settings, dense, setting = run.spec.finetune, run.dense, run.setting
    if settings.epochs == 0:
        batches = run.spec.score.calibration_batches
        calibrate(small, dense.data, batches, setting, seed=record.seed or 0)
        return evaluate(small, dense.data.val, dense.task, setting), ()
    state = training_state(run.spec, record.candidate)
    result = retrain(small, dense, run.spec, setting, state=state, watch=run.watch, group=run.group)
    return result.score, result.records
