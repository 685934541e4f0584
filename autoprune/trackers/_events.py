"""The events that a tracker gets. Each but the first and the last has a key and is logged once a study.

Example:
    def track(event):
        if isinstance(event, TrialEnded):
            print(event.number, event.score)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StudyOpened:
    """A verb begins to work on a study. It is the first event.

    Attributes:
        study: name of the study.
        run: identifier of the study, the same in every verb that works on it.
        folder: output folder of the study.
        settings: {"section.key": value} of the settings that differ from their defaults.
        is_new: whether nothing of the study has been logged yet.
    """

    study: str
    run: str
    folder: Path
    settings: Mapping[str, Any]
    is_new: bool

    @property
    def title(self) -> str:
        """A name for the run that is different for two studies of one name."""
        return f"{self.study}-{self.run[:8]}"


@dataclass(frozen=True)
class TrialEnded:
    """A trial has ended.

    Attributes:
        number: of the trial.
        origin: "sampler", or the names of the heuristics that proposed it.
        outcome: "complete", "pruned" or "failed".
        reason: why it failed, else "".
        score: score after its last rung, or None if it climbed none.
        rungs: {rung: score}, such as {"calibrate": 0.83}.
        costs: {cost: amount}, such as {"macs": 20_312_576}.
        shares: {cost: share of the dense model's}.
        ratios: {variable: proposed keep ratio}.
        widths: {group: channels that it keeps}.
        seconds: duration of the trial, or None if it is not known.
    """

    number: int
    origin: str
    outcome: str
    reason: str
    score: float | None
    rungs: Mapping[str, float]
    costs: Mapping[str, float]
    shares: Mapping[str, float]
    ratios: Mapping[str, float]
    widths: Mapping[str, int]
    seconds: float | None

    @property
    def key(self) -> str:
        """What identifies the event within its study."""
        return f"trial {self.number}"


@dataclass(frozen=True)
class CurvePoint:
    """A point of a training curve.

    Attributes:
        curve: the training, such as "finetune of trial 17" or "race, trial 17".
        epoch: number of the epoch, from 1 on.
        values: {name: value}, such as {"loss": 0.31, "score": 0.92}.
    """

    curve: str
    epoch: int
    values: Mapping[str, float]

    @property
    def key(self) -> str:
        """What identifies the event within its study."""
        return f"{self.curve}, epoch {self.epoch}"


@dataclass(frozen=True)
class Result:
    """A result of the study: a number such as "best score" or "test score", or a sentence, the verdict."""

    name: str
    value: float | str

    @property
    def key(self) -> str:
        """What identifies the event within its study. A later value of one name is another event."""
        return f"{self.name}: {self.value}"


@dataclass(frozen=True)
class FileWritten:
    """A file was written, such as the HTML report or the recipe of a model.

    A changed file is another event.
    """

    path: Path

    @property
    def key(self) -> str:
        """What identifies the event within its study."""
        found = self.path.stat()
        return f"{self.path} of {found.st_size} bytes at {found.st_mtime_ns}"


@dataclass(frozen=True)
class StudyClosed:
    """The verb has ended. It is the last event."""


Logged = TrialEnded | CurvePoint | Result | FileWritten
"""The events that are logged once a study."""

TrackerEvent = StudyOpened | Logged | StudyClosed
Tracker = Callable[[TrackerEvent], None]
"""Logs one event. It runs in a thread of its own. If it raises an error, it gets no further events."""
