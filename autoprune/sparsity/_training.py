"""Train a model under a penalty, so that channels that it can do without end near zero.

Example:
    sparse = sparsify(prunable, data, Schedule(epochs=40), setting, Task(), penalty="bn-l1", strength=1e-3)
    plan = threshold_plan(sparse.prunable, share=0.4, floor=1)
    small = rebuild(sparse.prunable, plan)
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import NoneType

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.data import VisionData, model_seed, seeded
from autoprune.errors import ConfigError, shown_value
from autoprune.execution import Setting
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.sparsity._history import ScaleHistory
from autoprune.sparsity._hook import PenaltyHook, scale_places
from autoprune.sparsity._specs import PENALTIES, PenaltySpec
from autoprune.sparsity._threshold import threshold_plan
from autoprune.support.rows import find_row
from autoprune.support.usercode import entry
from autoprune.training import (
    EpochRecord,
    Evaluation,
    FitResult,
    Schedule,
    StepHook,
    Task,
    fit,
    measure,
    recalibrate,
)

SHORT = 0.25
"""Length of the training of each of several strengths, as a share of the whole training."""

CALIBRATION_BATCHES = 20
"""Training batches on which BatchNorm is measured again before a strength is scored."""


@dataclass(frozen=True, eq=False)
class StrengthTrial:
    """The short training under one of several strengths.

    Attributes:
        strength: of the penalty.
        score: metric on the validation part after the training.
        cut_score: the same after the cut that the rule makes, with BatchNorm measured again.
        cut_error: standard error of `cut_score`, or None if the metric is no mean over images.
        history: the scales.
    """

    strength: float
    score: float
    cut_score: float
    cut_error: float | None
    history: ScaleHistory


@dataclass(frozen=True, eq=False)
class Sparsified:
    """A model that was trained under a penalty.

    Attributes:
        prunable: the traced model over the trained weights. Plans are made from it.
        strength: of the penalty.
        result: score and epochs of the training.
        history: the scales during the training.
        trials: the short trainings, if there were several strengths.
    """

    prunable: Prunable
    strength: float
    result: FitResult
    history: ScaleHistory
    trials: tuple[StrengthTrial, ...] = ()

    @property
    def model(self) -> nn.Module:
        """The trained model, of the dense one's architecture."""
        return self.prunable.model


@dataclass(frozen=True)
class _Training:
    """Everything that the trainings under several strengths share."""

    prunable: Prunable
    data: VisionData
    setting: Setting
    task: Task
    name: str
    spec: PenaltySpec
    seed: int
    plan: Plan | None
    initial_scale: float | None
    options: Mapping[str, float]
    hooks: tuple[StepHook, ...]

    def run(
        self,
        strength: float,
        schedule: Schedule,
        checkpoint: Path | None,
        pth: Path | None = None,
        on_epoch: Callable[[EpochRecord], None] | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Sparsified:
        """Train a copy of the dense model."""
        model = copy.deepcopy(self.prunable.model).train()
        if self.initial_scale is not None:
            with torch.no_grad():
                for parameter, index in scale_places(model, self.prunable):
                    parameter[slice(None) if index is None else index] = self.initial_scale
        hook = PenaltyHook(
            self.prunable,
            self.name,
            self.spec,
            strength,
            every=len(self.data.train),
            plan=self.plan,
            options=self.options,
        )
        result = fit(
            model,
            self.data,
            schedule,
            self.setting,
            self.task,
            seed=self.seed,
            hooks=(hook, *self.hooks),
            on_epoch=on_epoch,
            on_step=on_step,
            checkpoint=checkpoint,
            pth=pth,
        )
        # Groups and costs depend on shapes alone, so the trace of the dense model serves the trained one.
        model.to(next(self.prunable.model.parameters()).device).eval()
        trained = dataclasses.replace(self.prunable, model=model)
        return Sparsified(trained, strength, result, hook.history)

    def tried(
        self, strengths: Iterable[float], share: float, schedule: Schedule, checkpoint: Path | None
    ) -> Iterator[StrengthTrial]:
        """Train under each of several strengths, and score the model that the rule cuts from it."""
        for number, strength in enumerate(strengths, start=1):
            sparse = self.run(strength, schedule, _numbered(checkpoint, number))
            cut = self._cut(sparse, share)
            yield StrengthTrial(strength, sparse.result.score, cut.score, cut.standard_error, sparse.history)

    def _cut(self, sparse: Sparsified, share: float) -> Evaluation:
        """Score the model that is left of a sparse one after a cut."""
        if self.plan is not None:
            plan = self.plan
        else:
            ranked = self.spec.ranked(sparse.model, self.prunable)
            plan = threshold_plan(sparse.prunable, share, floor=1, importance=ranked)
        small = rebuild(sparse.prunable, plan)
        with seeded(model_seed(self.seed)):
            recalibrate(small, self.data.train, CALIBRATION_BATCHES, self.setting, seed=self.seed)
            return measure(small, self.data.val, self.task, self.setting)


@entry(ConfigError, prunable=Prunable, data=VisionData, schedule=Schedule, plan=(Plan, NoneType))
def sparsify(
    prunable: Prunable,
    data: VisionData,
    schedule: Schedule,
    setting: Setting,
    task: Task,
    *,
    penalty: str = "bn-l1",
    strength: float | Sequence[float] = 1e-4,
    seed: int = 0,
    share: float = 0.5,
    short: Schedule | None = None,
    plan: Plan | None = None,
    initial_scale: float | None = None,
    options: Mapping[str, float] | None = None,
    hooks: Sequence[StepHook] = (),
    checkpoint: Path | None = None,
    pth: Path | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    on_trial: Callable[[StrengthTrial], None] | None = None,
) -> Sparsified:
    """Train a copy of the dense model under a penalty.

    With several strengths, each is tried in a short training, and the best is trained in full. To compare
    them, one threshold cuts `share` of the channels, with at least one left in each group, and BatchNorm is
    measured again. The best strength is that of the highest score on the validation part. Of equal scores the
    weaker strength wins.

    Args:
        prunable: the traced dense model, which is not changed.
        data: trains on data.train and scores on data.val.
        schedule: of the training.
        setting: how forward and backward passes run.
        task: loss and metric.
        penalty: a row of PENALTIES, or "package.module:function".
        strength: factor of the penalty, or several to choose from.
        seed: of the batches and of everything random in the model.
        share: share of the channels that are cut to compare strengths.
        short: schedule of the trainings that compare strengths. The default is a quarter of `schedule`.
        plan: the channels to keep, for penalties that need it, such as "growing".
        initial_scale: value of all penalised BatchNorm scales before the training, such as 0.5 for a model
            that is trained from scratch. None leaves them.
        options: arguments of the penalty by name, such as {"t": 1.4}.
        hooks: further hooks of the trainer, which act after the penalty.
        checkpoint: file for the state of the training. With several strengths each has its own next to it. A
            call with the same arguments goes on from there.
        pth: file for the usual checkpoint of the full training. See `fit`.
        on_epoch: called with the record of every epoch of the full training.
        on_step: called with the steps of its epochs, as `fit` does.
        on_trial: called with each of several strengths that was tried.

    Raises:
        ConfigError: the penalty is unknown or does not fit the model, or a strength or option is wrong.
        TrialError: the loss is not finite.
        CheckpointError: the checkpoint is corrupt, of another training, or cannot be written.
    """
    spec = check_penalty(prunable, penalty, options, has_plan=bool(plan))
    strengths = check_strengths(strength)
    shared = (prunable, data, setting, task, penalty, spec, seed, plan, initial_scale)
    training = _Training(*shared, options or {}, tuple(hooks))
    if len(strengths) == 1:
        return training.run(strengths[0], schedule, checkpoint, pth, on_epoch, on_step)
    trials = []
    for trial in training.tried(strengths, share, short or _shortened(schedule), checkpoint):
        trials.append(trial)
        if on_trial is not None:
            on_trial(trial)
    full = training.run(choose(trials).strength, schedule, checkpoint, pth, on_epoch, on_step)
    return dataclasses.replace(full, trials=tuple(trials))


def choose(trials: Sequence[StrengthTrial]) -> StrengthTrial:
    """Return the trial with the highest score after the cut. Among equals it has the weaker strength."""
    return min(trials, key=lambda trial: (-trial.cut_score, trial.strength))


def check_strengths(strength: float | Sequence[float]) -> list[float]:
    """Return the strengths to try.

    Raises:
        ConfigError: there is none, or one is negative or not finite.
    """
    given = list(strength) if isinstance(strength, Sequence) and not isinstance(strength, str) else [strength]
    right = [
        isinstance(each, (int, float)) and not isinstance(each, bool) and math.isfinite(each) and each >= 0
        for each in given
    ]
    if not given or not all(right) or len(set(given)) < len(given):
        raise ConfigError(
            f"sparsify.strength: got {shown_value(strength)}, expected a number of 0 or more, or a list of "
            "different ones."
        )
    return [float(each) for each in given]


def check_penalty(
    prunable: Prunable, name: str, options: Mapping[str, float] | None = None, *, has_plan: bool = False
) -> PenaltySpec:
    """Return the penalty of a name, after a check that it has something to act on.

    Args:
        prunable: the traced model.
        name: a row of PENALTIES, or "package.module:function".
        options: arguments of the penalty by name.
        has_plan: whether the training will have a plan of the channels to keep.

    Raises:
        ConfigError: there is no such penalty or option, or no BatchNorm, group or plan that it needs.
    """
    spec = find_row(name, PENALTIES, "sparsify.penalty", PenaltySpec)
    spec.check_options(name, options or {})
    model = type(prunable.model).__name__
    if not prunable.searchable:
        raise ConfigError(f"sparsify: {model} has no channel group to narrow. See prunable.groups.")
    if spec.needs == "scales" and not scale_places(prunable.model, prunable):
        has_norm = any(isinstance(module, _BatchNorm) for module in prunable.model.modules())
        lack = "none of its BatchNorms scales a searchable group" if has_norm else "it has no BatchNorm"
        raise ConfigError(
            f'sparsify.penalty: "{name}" acts on BatchNorm scales, but {model} does not fit: {lack}. Use '
            '"group-lasso".'
        )
    if spec.needs == "plan" and not has_plan:
        raise ConfigError(
            f'sparsify.penalty: "{name}" acts on the channels that a plan cuts. Give plan, such as '
            'make_plan(prunable, 0.5), or in a flow stages = ["select", "sparsify", "finetune"].'
        )
    return spec


def _shortened(schedule: Schedule) -> Schedule:
    def part(length: int | None) -> int | None:
        return None if length is None else max(1, round(SHORT * length))

    return dataclasses.replace(schedule, epochs=part(schedule.epochs), steps=part(schedule.steps))


def _numbered(checkpoint: Path | None, number: int) -> Path | None:
    return checkpoint and checkpoint.with_name(f"{checkpoint.stem}-strength-{number}{checkpoint.suffix}")
