"""The events that a long verb sends to its watcher, a function that may show them.

Events only report progress. No result depends on a watcher.

Example:
    search(config=config, watch=print)      # Stage("traced 19 channel groups, ..."), TrialDone(...), ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A step begins, or reports a result or a warning in one line."""

    text: str


@dataclass(frozen=True)
class Counted:
    """`done` of `total` steps are done, such as the evaluations of a measurement.

    Attributes:
        what: name of the count.
        done: number of steps that are done.
        total: number of all steps.
        note: a result so far, or "".
        level: 0 for the phases of a search, 1 for the epochs of a training, 2 for all that is inside these.
    """

    what: str
    done: int
    total: int
    note: str = ""
    level: int = 2


@dataclass(frozen=True)
class TrialDone:
    """A trial of a search has ended.

    Attributes:
        number: number of the trial in its study.
        outcome: "complete", "pruned" or "failed".
        score: score at its last rung, or None if it failed before the first.
        cost: name of the cost that the budget limits most tightly, as reports print it.
        share: that cost as a share of the dense model's.
        seconds: duration of the trial.
        reason: why it failed, else "".
        done: number of trials that have ended so far.
        trials: number of trials of the search.
        best: the best score so far and its `share`, or None before the first complete trial.
        front: number of trials on the Pareto front so far, or 0 for a search with one objective.
        latency_ms: predicted latency, or None if latency is neither limited nor minimised.
        error: standard error of the score, or None if it is not known.
    """

    number: int
    outcome: str
    score: float | None
    cost: str
    share: float
    seconds: float
    reason: str
    done: int
    trials: int
    best: tuple[float, float] | None
    front: int = 0
    latency_ms: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a training has ended. The score is the metric on the validation part."""

    epoch: int
    epochs: int
    loss: float
    score: float
    seconds: float


Event = Stage | Counted | TrialDone | EpochDone
Watcher = Callable[[Event], None]


def silent(event: Event) -> None:
    """Ignore an event."""
