"""Logs a study for TensorBoard, into the folder "tensorboard" of the output folder.

tensorboard --logdir runs        # shows all studies there
"""

from __future__ import annotations

from typing import Any

from autoprune.support.extras import load_extra
from autoprune.trackers._events import CurvePoint, Result, StudyClosed, StudyOpened, TrackerEvent, TrialEnded


class TensorBoard:
    """A tracker that writes scalars over the trials, hyperparameters, and curves of trainings."""

    def __init__(self) -> None:
        for module in ("tensorboard", "torch.utils.tensorboard"):
            found = load_extra(module, extra="tensorboard", purpose="the tracker tensorboard")
        self._make_writer = found.SummaryWriter
        self._writer: Any = None

    def __call__(self, event: TrackerEvent) -> None:
        """Write one event to the disk."""
        if isinstance(event, StudyOpened):
            self._writer = self._make_writer(str(event.folder / "tensorboard" / event.title))
            if event.is_new:
                lines = [f"    {key} = {value!r}" for key, value in event.settings.items()]
                self._writer.add_text("settings", "\n".join(lines))
        elif isinstance(event, TrialEnded):
            self._trial(event)
        elif isinstance(event, CurvePoint):
            for name, value in event.values.items():
                self._writer.add_scalar(f"{event.curve}/{name}", value, event.epoch)
        elif isinstance(event, Result):
            if isinstance(event.value, str):
                self._writer.add_text(f"result/{event.name}", event.value)
            else:
                self._writer.add_scalar(f"result/{event.name}", event.value)
        self._writer.flush()
        if isinstance(event, StudyClosed):
            self._writer.close()

    def _trial(self, trial: TrialEnded) -> None:
        rungs = {f"after {rung}": score for rung, score in trial.rungs.items()}
        shares = {f"{cost} share": share for cost, share in trial.shares.items()}
        score = {} if trial.score is None else {"score": trial.score}
        for name, value in {**score, **rungs, **shares}.items():
            self._writer.add_scalar(f"trials/{name}", value, trial.number)
        if score:
            ratios = {"origin": trial.origin, "outcome": trial.outcome, **trial.ratios}
            figures = {f"trial/{name}": value for name, value in {**score, **shares}.items()}
            self._writer.add_hparams(ratios, figures, run_name=f"trial {trial.number:04}")
        else:
            self._writer.add_text("trials/failures", f"trial {trial.number}: {trial.reason}", trial.number)
