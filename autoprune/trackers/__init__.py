"""Trackers log a study for TensorBoard, MLflow or Weights & Biases. Each is a row of TRACKERS.

A tracker is a function of one event (see `TrackerEvent`). A row has the function that makes it, because a
tracker usually keeps a connection or a file.

Example:
    with Tracking("mlflow", find_tracker("mlflow").make, opened, warn) as tracking:
        tracking.log(TrialEnded(...))

A tracker of your own needs no row. A config names the function that makes it, or a class, such as
`trackers = ["mypkg.tracking:Notifier"]`:

    from autoprune.trackers import TrackerEvent, TrialEnded

    class Notifier:
        def __call__(self, event: TrackerEvent) -> None:
            if isinstance(event, TrialEnded) and event.outcome == "failed":
                print("trial", event.number, "failed:", event.reason)
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autoprune.errors import ConfigError
from autoprune.support.rows import Row, find_row
from autoprune.trackers._events import (
    CurvePoint,
    FileWritten,
    Logged,
    Result,
    StudyClosed,
    StudyOpened,
    Tracker,
    TrackerEvent,
    TrialEnded,
)
from autoprune.trackers._mlflow import MLflow
from autoprune.trackers._tensorboard import TensorBoard
from autoprune.trackers._tracking import Tracking
from autoprune.trackers._wandb import WandB

KEY = "report.trackers"


@dataclass(frozen=True)
class TrackerSpec(Row):
    """A row of TRACKERS.

    Attributes:
        make: makes the tracker of a study, in the thread that uses it.
        needs: a package that it imports, which the extra of the row's name installs, or None.
    """

    make: Callable[[], Tracker]
    needs: str | None = None


TRACKERS: dict[str, TrackerSpec] = {
    "tensorboard": TrackerSpec(
        TensorBoard, "tensorboard", about="event files in the output folder, for TensorBoard"
    ),
    "mlflow": TrackerSpec(MLflow, "mlflow", about="runs of MLflow, on the server of MLFLOW_TRACKING_URI"),
    "wandb": TrackerSpec(WandB, "wandb", about="a run of Weights & Biases, in the project of WANDB_PROJECT"),
}

__all__ = [
    "KEY",
    "TRACKERS",
    "CurvePoint",
    "FileWritten",
    "Logged",
    "Result",
    "StudyClosed",
    "StudyOpened",
    "Tracker",
    "TrackerEvent",
    "TrackerSpec",
    "Tracking",
    "TrialEnded",
    "check_trackers",
    "find_tracker",
]


def find_tracker(name: str) -> TrackerSpec:
    """Return a row of TRACKERS, or the user's own from "package.module:function".

    Raises:
        ConfigError: there is no such row (the nearest is suggested), or no such function.
    """
    return find_row(name, TRACKERS, KEY, TrackerSpec)


def check_trackers(names: Iterable[str]) -> None:
    """Refuse trackers that do not exist, or whose packages are not installed, before any work is done.

    Raises:
        ConfigError: a tracker cannot be used.
    """
    for name in names:
        needs = find_tracker(name).needs
        if needs is not None and importlib.util.find_spec(needs) is None:
            raise ConfigError(
                f'{KEY}: "{name}" needs the package {needs}: pip install "autoprune[{name}]", or leave it '
                "out."
            )
