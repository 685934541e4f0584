"""Logs a study to MLflow: a run of the study, and in it a nested run for each trial.

MLFLOW_TRACKING_URI names the server or the database, and MLFLOW_EXPERIMENT_NAME the experiment.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from typing import Any

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

EXPERIMENT = "autoprune"
"""The experiment unless MLFLOW_EXPERIMENT_NAME names another."""

_RUN, _TRIAL = "autoprune.run", "autoprune.trial"
_LONGEST_PARAM = 500
_ENDED = ("FINISHED", "FAILED", "KILLED")
_MOST_PARAMS = 100  # of one request


class MLflow:
    """A tracker that logs through MLflow's client. It finds its runs again by their tags."""

    def __init__(self) -> None:
        self._mlflow = load_extra("mlflow", extra="mlflow", purpose="the tracker mlflow")
        self._client = self._mlflow.tracking.MlflowClient()
        self._experiment = self._run = self._study = ""

    def __call__(self, event: TrackerEvent) -> None:
        """Send one event."""
        if isinstance(event, StudyOpened):
            self._open(event)
        elif isinstance(event, TrialEnded):
            self._trial(event)
        elif isinstance(event, CurvePoint):
            self._log(self._run, {f"{event.curve}/{k}": v for k, v in event.values.items()}, event.epoch)
        elif isinstance(event, Result) and isinstance(event.value, str):
            self._client.set_tag(self._run, "mlflow.note.content", event.value)
        elif isinstance(event, Result):
            self._log(self._run, {event.name: float(event.value)})
        elif isinstance(event, FileWritten):
            self._client.log_artifact(self._run, str(event.path))
        elif isinstance(event, StudyClosed):
            self._client.set_terminated(self._run)

    def _open(self, study: StudyOpened) -> None:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        self._experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        self._study = study.run
        found = self._find()
        if found is not None:
            self._run = found.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {_RUN: study.run, _TRIAL: ""}
        self._run = self._client.create_run(self._experiment, run_name=study.study, tags=tags).info.run_id
        self._params(self._run, study.settings)

    def _trial(self, trial: TrialEnded) -> None:
        found = self._find(str(trial.number))
        if found is not None and found.status in _ENDED:
            return
        score = {} if trial.score is None else {"score": trial.score}
        if score and found is None:
            self._log(self._run, score, trial.number)
        tags = {
            _RUN: self._study,
            _TRIAL: str(trial.number),
            "mlflow.parentRunId": self._run,
            "origin": trial.origin,
            "outcome": trial.outcome,
            "reason": trial.reason,
        }
        name = f"trial {trial.number}"
        # A run that has not ended is that of a process which was killed while it logged this trial.
        info = found or self._client.create_run(self._experiment, run_name=name, tags=tags).info
        run = str(info.run_id)
        rungs = {f"after {rung}": each for rung, each in trial.rungs.items()}
        shares = {f"{cost} share": share for cost, share in trial.shares.items()}
        self._log(run, {**score, **rungs, **trial.costs, **shares})
        widths = {f"width {group}": width for group, width in trial.widths.items()}
        self._params(run, {**trial.ratios, **widths})
        self._client.set_terminated(run, "FAILED" if trial.outcome == "failed" else "FINISHED")

    def _find(self, trial: str = "") -> Any:
        """Return the facts of the run of the study, or of one of its trials, or None if there is none yet."""
        tags = f"tags.`{_RUN}` = '{self._study}' and tags.`{_TRIAL}` = '{trial}'"
        found = self._client.search_runs([self._experiment], tags, max_results=1)
        return found[0].info if found else None

    def _log(self, run: str, values: Mapping[str, float], step: int = 0) -> None:
        make, now = self._mlflow.entities.Metric, int(time.time() * 1000)
        metrics = [make(_usable(name), float(value), now, step) for name, value in values.items()]
        self._client.log_batch(run, metrics=metrics)

    def _params(self, run: str, values: Mapping[str, Any]) -> None:
        make = self._mlflow.entities.Param
        params = [make(_usable(name), str(value)[:_LONGEST_PARAM]) for name, value in values.items()]
        for start in range(0, len(params), _MOST_PARAMS):
            self._client.log_batch(run, params=params[start : start + _MOST_PARAMS])


def _usable(name: str) -> str:
    """Return a name with the characters alone that MLflow allows."""
    return re.sub(r"[^\w\-. /]", "_", name)
