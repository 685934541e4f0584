"""Logs a study to Weights & Biases, as one run.

WANDB_PROJECT names the project, and WANDB_MODE=offline keeps the run in the output folder.
"""

from __future__ import annotations

import os
from typing import Any

from autoprune.errors import ConfigError
from autoprune.support.extras import load_extra
from autoprune.trackers._events import (
    CurvePoint,
    FileWritten,
    Result,
    StudyClosed,
    StudyOpened,
    TrackerEvent,
    TrialEnded,
)

PROJECT = "autoprune"
"""The project unless WANDB_PROJECT names another."""


class WandB:
    """A tracker that logs through the package wandb. The run goes on under the identifier of the study."""

    def __init__(self) -> None:
        self._wandb = load_extra("wandb", extra="wandb", purpose="the tracker wandb")
        self._run: Any = None
        self._study = ""
        self._curves: set[str] = set()

    def __call__(self, event: TrackerEvent) -> None:
        """Send one event."""
        if isinstance(event, StudyOpened):
            self._open(event)
        elif isinstance(event, TrialEnded):
            self._trial(event)
        elif isinstance(event, CurvePoint):
            if event.curve not in self._curves:
                self._curves.add(event.curve)
                self._run.define_metric(f"{event.curve}/*", step_metric=f"{event.curve}/epoch")
            points = {"epoch": event.epoch, **event.values}
            self._run.log({f"{event.curve}/{name}": value for name, value in points.items()})
        elif isinstance(event, Result):
            self._run.summary[event.name] = event.value
        elif isinstance(event, FileWritten):
            name = f"{self._study}-{event.path.stem}"
            artifact = self._wandb.Artifact(name, type="result")
            artifact.add_file(str(event.path))
            self._run.log_artifact(artifact)
        elif isinstance(event, StudyClosed):
            self._run.finish()

    def _open(self, study: StudyOpened) -> None:
        is_online = os.environ.get("WANDB_MODE", "online") == "online"
        if is_online and not self._wandb.login(prompt=False):  # it would wait for an answer in the terminal
            raise ConfigError("no key is known: run `wandb login`, or set WANDB_MODE=offline.")
        self._study = study.title
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=study.study,
            id=study.run,
            resume="allow",
            dir=str(study.folder),
            config=dict(study.settings),
            settings=self._wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("trials/*", step_metric="trials/number")

    def _trial(self, trial: TrialEnded) -> None:
        values: dict[str, Any] = {"number": trial.number, "outcome": trial.outcome, "origin": trial.origin}
        if trial.score is not None:
            values["score"] = trial.score
        values |= {f"after {rung}": score for rung, score in trial.rungs.items()}
        values |= {f"{cost} share": share for cost, share in trial.shares.items()}
        values |= {f"width {group}": width for group, width in trial.widths.items()}
        self._run.log({f"trials/{name}": value for name, value in values.items()})
