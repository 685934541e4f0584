"""The score of a candidate: rebuild it at its widths, repair it, recalibrate BatchNorm, finetune, evaluate.

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
from autoprune.criteria import Importance, plan_from_importance
from autoprune.data import Batch, VisionData, endless, model_seed, seeded
from autoprune.errors import ConfigError
from autoprune.execution import Setting
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, repair_closed
from autoprune.support.memory import release_freed_memory
from autoprune.train import Schedule, Task, Trainer, evaluate, recalibrate


@dataclass(frozen=True)
class Rung:
    """One rung of the ladder: a finetune of so many steps or epochs; with neither, no finetune.

    One that is named "repair" repairs the candidate first.

    Raises:
        ConfigError: both steps and epochs, or a number out of its range.
    """

    name: str
    steps: int | None = None
    epochs: int | None = None
    learning_rate: float = 0.02

    def __post_init__(self) -> None:
        if self.steps is not None and self.epochs is not None:
            raise ConfigError(f'score.rungs: "{self.name}" has both steps and epochs; give one of the two.')
        length = self.steps if self.epochs is None else self.epochs
        if (length is not None and length < 1) or self.learning_rate <= 0:
            raise ConfigError(
                f'score.rungs: "{self.name}": {length} at learning rate {self.learning_rate:g}; '
                "both must be more than 0."
            )

    def schedule(self, base: Schedule) -> Schedule | None:
        """Return the finetune's schedule, with everything but length and learning rate from `base`."""
        if self.steps is None and self.epochs is None:
            return None
        return dataclasses.replace(
            base, steps=self.steps, epochs=self.epochs, learning_rate=self.learning_rate
        )


def calibrate(model: nn.Module, data: VisionData, batches: int, setting: Setting, *, seed: int) -> None:
    """Recalibrate BatchNorm as a trial with that seed does, and give the random states back."""
    with seeded(model_seed(seed)):
        recalibrate(model, data.train, batches, setting, seed=seed)


class FinetuneScore:
    """Scores widths; a plain value to hand to an engine. One call is one trial, its rungs come one at a time.

    Weights, and the place in the stream of batches, are kept from rung to rung: no step is done twice. Each
    rung has an optimiser and a schedule of its own, to the end of which it goes. All randomness follows from
    the trial's seed; global random states are as before between the rungs.

    Args:
        prunable: the traced dense model, never changed.
        importance: per group, an importance per channel; computed once a search.
        data: trains on data.train, scores on data.val; data.test is not touched.
        task: loss and metric.
        setting: how forward and backward passes run.
        rungs: from cheap to dear.
        schedule: of the finetunes, but for their length and learning rate.
        calibration_batches: training batches that BatchNorm's statistics are measured on, before the first
            finetune; see `rungs.recalibrates`.
        teacher: the dense model, if the finetunes follow it.
        moments: of the model that candidates are cut from, for the rung "repair".

    Raises:
        ConfigError: there are no rungs, or moments are missing.
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
    ) -> None:
        if not rungs:
            raise ConfigError('score.rungs: empty; give at least one, e.g. ["calibrate", "100 steps"].')
        for rung in rungs:
            if rung_spec(rung.name).repairs and moments is None:
                where = f'score.rungs: "{rung.name}"'
                raise ConfigError(f"{where} needs moments of the dense model; give `moments`.")
        self._prunable = prunable
        self._importance = importance
        self._data = data
        self._task = task
        self._setting = setting
        self._rungs = tuple(rungs)
        self._schedule = schedule or Schedule(steps=1)
        self._calibration_batches = calibration_batches
        # A copy, because placing it changes device and layout, and the dense model is never changed.
        self._teacher = setting.place(copy.deepcopy(teacher)).eval() if teacher is not None else None
        self._moments = moments

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        """Yield the score of each rung; work goes on only when the next is asked for.

        Raises:
            PlanError: the widths do not fit the groups.
            TrialError: the candidate diverged.
        """
        # Before the new model, not after it: a generator that is collected early would swallow a Ctrl-C here.
        release_freed_memory()
        started = time.perf_counter()
        plan = plan_from_importance(self._prunable, widths, self._importance)
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
                score = evaluate(model, self._data.val, self._task, self._setting)
            yield RungScore(index, rung.name, score, time.perf_counter() - started)
            started = time.perf_counter()

    def _cut(self, plan: Plan, rung: Rung) -> nn.Module:
        model = rebuild(self._prunable, plan)
        if not rung_spec(rung.name).repairs or self._moments is None:
            return model
        return repair_closed(self._prunable, plan, model, self._moments).model

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
