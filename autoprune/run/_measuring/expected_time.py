"""Estimates the duration of a search.

Example:
    pace = Pace(step_s=0.1, image_s=2e-4)
    time_text(pace.search_s(spec, data))      # "25 min"
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.config.rungs import recalibrates
from autoprune.data import VisionData
from autoprune.progress import time_text
from autoprune.run._resolving.spec import RunSpec
from autoprune.training import Schedule


@dataclass(frozen=True)
class Pace:
    """The speed of the dense model on this machine.

    Attributes:
        step_s: seconds of a training step.
        image_s: seconds of a forward pass per image.
        repair_s: seconds of the refit of a candidate. See `try_repair`.
    """

    step_s: float
    image_s: float
    repair_s: float = 0.0

    def trial_s(self, spec: RunSpec, data: VisionData) -> float:
        """Return the seconds of a trial that climbs all rungs at the speed of the dense model."""
        batch_s = spec.data.batch_size * self.image_s
        # The teacher runs forward in each step.
        step_s = self.step_s + (batch_s if spec.score.teacher == "dense" else 0.0)
        names = [rung.name for rung in spec.rungs]
        total = self.repair_s if spec.is_repaired else 0.0
        for index, rung in enumerate(spec.rungs):
            if recalibrates(names, index):
                total += spec.score.calibration_batches * batch_s
            schedule = rung.schedule(Schedule(steps=1))
            steps = 0 if schedule is None else schedule.total_steps(len(data.train))
            total += steps * step_s + data.val.samples * self.image_s
        return total

    def search_s(self, spec: RunSpec, data: VisionData) -> float:
        """Return the seconds of a search whose trials climb all rungs at the speed of the dense model.

        The training of a supernet is included. Most candidates are faster than the dense model. On the other
        hand, some work is not included: samplers, reading and augmenting images, cutting models, the moments
        of a supernet, the start of workers, and the timing of finalists.
        """
        search = spec.search
        at_once = min(search.workers, search.trials) if spec.is_parallel else 1
        return self._supernet_s(spec, data) + search.trials * self.trial_s(spec, data) / at_once

    def race_s(self, spec: RunSpec, data: VisionData, epochs: float) -> float:
        """Return the seconds of a race whose trainings have this many epochs in sum, at the same speed."""
        batch_s = spec.data.batch_size * self.image_s
        step_s = self.step_s + (batch_s if spec.finetune.teacher == "dense" else 0.0)
        return epochs * (len(data.train) * step_s + data.val.samples * self.image_s)

    def _supernet_s(self, spec: RunSpec, data: VisionData) -> float:
        """Return the seconds of the training of the supernet, 0 if there is none."""
        if not spec.has_supernet:
            return 0.0
        settings = spec.score.supernet
        # Each step trains the whole model, the smallest sub-net and some random ones.
        epoch_s = len(data.train) * (2 + settings.subnets) * self.step_s + data.val.samples * self.image_s
        return settings.epochs * epoch_s

    def announcement(self, spec: RunSpec, data: VisionData, plans: int | None, race_epochs: float = 0) -> str:
        """Return a line with the expected duration of a search.

        Args:
            spec: the settings of the run.
            data: its data.
            plans: number of distinct plans, or None if there are too many to count.
            race_epochs: the epochs of all trainings of the race in sum, or 0 if there is none.
        """
        trials = spec.search.trials if plans is None else min(spec.search.trials, plans)
        spec = spec.with_search(trials=trials)
        supernet = " with the training of the supernet" if spec.has_supernet else ""
        count = "1 trial takes" if trials == 1 else f"{trials} trials take"
        race = (
            f", and the race about {time_text(self.race_s(spec, data, race_epochs))}" if race_epochs else ""
        )
        time = time_text(self.search_s(spec, data))
        return f"{count} about {time}{supernet}{race}, at the dense model's speed"
