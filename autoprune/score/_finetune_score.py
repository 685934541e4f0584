"""Score a candidate: rebuild it, repair it, recalibrate BatchNorm, finetune it and evaluate it.

Example:
    rungs = (Rung("calibrate"), Rung("100 steps", steps=100))
    score = FinetuneScore(prunable, importance, data, Task(), setting, rungs)
    for rung in score({"layer1.0.conv1": 8}, seed=17):
        print(rung.name, rung.score, rung.seconds)
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import nn

from autoprune.config.rungs import RungScore, recalibrates, rung_spec
from autoprune.criteria import Importance, mixed, plan_from_importance
from autoprune.data import Batch, VisionData, endless, model_seed, seeded
from autoprune.errors import ConfigError
from autoprune.execution import Setting
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, repair_closed
from autoprune.space import Candidate
from autoprune.support.memory import release_freed_memory
from autoprune.training import Schedule, Task, Trainer, measure, recalibrate


@dataclass(frozen=True)
class Rung:
    """One rung: a finetune of `steps` or `epochs`, or none if both are None, and then an evaluation.

    If the spec of the rung has `repairs`, as "repair" does, the candidate is cut again and repaired first.

    Raises:
        ConfigError: if both steps and epochs are given, or a number is out of its range.
    """

    name: str
    steps: int | None = None
    epochs: int | None = None

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f'score.rungs: "{self.name}" has both steps and epochs. Give one of the two.')
        length = self.steps if self.epochs is None else self.epochs
        if length is not None and length < 1:
            raise ConfigError(f'score.rungs: "{self.name}": got length {length}, expected at least 1.')

    def schedule(self, base: Schedule) -> Schedule | None:
        """Return `base` with this rung's length, or None if the rung has no finetune."""
        if self.steps is None and self.epochs is None:
            return None
        return dataclasses.replace(base, steps=self.steps, epochs=self.epochs)


def calibrate(model: nn.Module, data: VisionData, batches: int, setting: Setting, *, seed: int) -> None:
    """Recalibrate BatchNorm as a trial with this seed does. The global random states do not change."""
    with seeded(model_seed(seed)):
        recalibrate(model, data.train, batches, setting, seed=seed)


def plan_of(
    prunable: Prunable,
    widths: Mapping[str, int],
    importance: Importance,
    rankings: Mapping[str, Importance],
) -> Plan:
    """Return the plan of a candidate.

    Args:
        prunable: the traced model.
        widths: {group name: width}. A `Candidate` may choose criteria too.
        importance: {group name: importance of each channel} of the groups that choose no criterion.
        rankings: {criterion: such an importance} of further criteria.

    Raises:
        PlanError: if the widths do not fit the groups.
    """
    criteria = widths.criteria if isinstance(widths, Candidate) else {}
    return plan_from_importance(prunable, widths, mixed(importance, rankings, criteria))


def cut_model(prunable: Prunable, plan: Plan, moments: Moments | None) -> nn.Module:
    """Return the model of a plan, repaired if there are moments."""
    model = rebuild(prunable, plan)
    return model if moments is None else repair_closed(prunable, plan, model, moments).model


class FinetuneScore:
    """Score the widths of one trial, rung by rung.

    A rung continues from the weights of the rung before (a repair cuts them again) and from
    its position in the stream of batches. Each rung has its own optimiser and its own learning-rate schedule.
    All randomness follows from the trial's seed, and the global random states do not change.

    Args:
        prunable: the traced dense model, which is not changed.
        importance: {group name: importance of each channel}.
        data: candidates train on data.train and are scored on data.val. data.test is not used.
        task: the loss and the metric.
        setting: how forward and backward passes run.
        rungs: the rungs, from cheap to expensive.
        schedule: the schedule of the finetunes, of which each rung replaces the length. By default its
            learning rate is 0.02.
        calibration_batches: number of training batches on which BatchNorm's statistics are measured before
            the first finetune (see `recalibrates`).
        teacher: the model to distill from, or None.
        moments: moments of the dense model, which the rung "repair" needs.
        rankings: {criterion: such an importance} of further criteria that candidates choose from.

    Raises:
        ConfigError: if there are no rungs, or "repair" has no moments.
    """

    def __init__(
        self,
        prunable: Prunable,
        importance: Importance,
        data: VisionData,
        task: Task,
        setting: Setting,
        rungs: Sequence[Rung],
        *,
        schedule: Schedule | None = None,
        calibration_batches: int = 20,
        teacher: nn.Module | None = None,
        moments: Moments | None = None,
        rankings: Mapping[str, Importance] | None = None,
    ) -> None:
        if not rungs:
            raise ConfigError('score.rungs: empty. Give at least one, e.g. ["calibrate", "100 steps"].')
        for rung in rungs:
            if rung_spec(rung.name).repairs and moments is None:
                where = f'score.rungs: "{rung.name}"'
                raise ConfigError(f"{where} needs the moments of the dense model. Pass moments=.")
        self._prunable = prunable
        self._importance = importance
        self._data = data
        self._task = task
        self._setting = setting
        self._rungs = tuple(rungs)
        self._schedule = schedule or Schedule(steps=1, learning_rate=0.02)
        self._calibration_batches = calibration_batches
        # A copy, because placing it changes device and layout, and the dense model is never changed.
        self._teacher = setting.place(copy.deepcopy(teacher)).eval() if teacher is not None else None
        self._moments = moments
        self._rankings = rankings or {}

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        """Yield the score of each rung. The next rung starts when the caller requests its score.

        Raises:
            PlanError: if the widths do not fit the groups.
            TrialError: if the candidate diverges.
        """
        # At the start, not at the end: Python ignores a Ctrl-C while it closes an unfinished generator.
        release_freed_memory()
        started = time.perf_counter()
        plan = plan_of(self._prunable, widths, self._importance, self._rankings)
        model: nn.Module | None = None
        batches = endless(self._data.train, seed)
        names = [rung.name for rung in self._rungs]
        for index, rung in enumerate(self._rungs):
            if model is None or rung_spec(rung.name).repairs:
                model = self._cut(plan, rung)
            if recalibrates(names, index):
                calibrate(model, self._data, self._calibration_batches, self._setting, seed=seed)
            with seeded(model_seed(seed, index)):
                self._finetune(model, rung, batches)
                found = measure(model, self._data.val, self._task, self._setting)
            seconds = time.perf_counter() - started
            yield RungScore(index, rung.name, found.score, seconds, found.standard_error)
            started = time.perf_counter()  # the time between two rungs belongs to the caller

    def _cut(self, plan: Plan, rung: Rung) -> nn.Module:
        return cut_model(self._prunable, plan, self._moments if rung_spec(rung.name).repairs else None)

    def _finetune(self, model: nn.Module, rung: Rung, batches: Iterator[Batch]) -> None:
        schedule = rung.schedule(self._schedule)
        if schedule is None:
            return
        steps = schedule.total_steps(len(self._data.train))
        trainer = Trainer(
            model, schedule, self._setting, self._task, total_steps=steps, teacher=self._teacher
        )
        trainer.run(batches, steps)
        if trainer.result is not model:
            model.load_state_dict(trainer.result.state_dict())
