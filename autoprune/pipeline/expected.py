"""Estimates how long a search takes at most.

pace = Pace(step_s=0.1, image_s=2e-4)
spoken(pace.search_s(config, data))      # "25 min"
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.data.vision import VisionData
from autoprune.pipeline.scoring import parse_rungs
from autoprune.settings import RunConfig
from autoprune.train import Schedule


@dataclass(frozen=True)
class Pace:
    """How fast the dense model runs here.

    Attributes:
        step_s: seconds of a training step.
        image_s: seconds of a forward pass, for each image of a batch.
    """

    step_s: float
    image_s: float

    def trial_s(self, config: RunConfig, data: VisionData) -> float:
        """Return the seconds of a trial that climbs all rungs with a model as slow as the dense one."""
        batch_s = config.data.batch_size * self.image_s
        # The teacher runs forward in each step.
        step_s = self.step_s + (batch_s if config.score.teacher == "dense" else 0.0)
        total = config.score.calibration_batches * batch_s
        for rung in parse_rungs(config.score):
            schedule = rung.schedule(Schedule(steps=1))
            steps = 0 if schedule is None else schedule.total_steps(len(data.train))
            total += steps * step_s + data.val.samples * self.image_s
        return total

    def search_s(self, config: RunConfig, data: VisionData) -> float:
        """Return the seconds that all trials of a search take at most, if none is pruned.

        Candidates are smaller than the dense model, so most take less. It does not count the time of the
        samplers, of reading and augmenting images, of cutting models, of starting workers, of training a
        supernet, or of measuring the latency of finalists.
        """
        search = config.search
        at_once = 1 if search.engine == "serial" else min(search.workers, search.trials)
        return search.trials * self.trial_s(config, data) / at_once


def spoken(seconds: float) -> str:
    """Return a time in the unit that suits it: "40 s", "25 min", "3.5 h", "12 days"."""
    for length, unit, most in ((1, "s", 90), (60, "min", 90), (3600, "h", 72)):
        if seconds < most * length:
            value = seconds / length
            return f"{value:.1f} {unit}" if unit == "h" and value < 10 else f"{max(1, round(value))} {unit}"
    return f"{seconds / 86400:.0f} days"
