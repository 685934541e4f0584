"""What a long verb tells while it works; a watcher may show it, and nothing depends on it.

search(config, watch=print)      # Stage("tracing resnet20"), TrialDone(...), ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import NoneType


@dataclass(frozen=True)
class Stage:
    """A step of the work begins, or has something to say."""

    text: str


@dataclass(frozen=True)
class Counted:
    """So many of a known number of things are done, such as the evaluations of a measurement."""

    what: str
    done: int
    total: int


@dataclass(frozen=True)
class TrialDone:
    """A trial of a search has ended, one way or another.

    Attributes:
        number: of the trial in its study.
        outcome: "complete", "pruned" or "failed".
        score: of its last rung; None where it failed before the first.
        cost: the cost that the budget limits most tightly, in the report's word.
        share: that cost over the dense model's.
        seconds: that it took.
        reason: why it failed, else "".
        done: trials that have ended so far.
        trials: trials asked for.
        best: the best score so far and its `share`; None before the first complete trial.
        front: of a search with several objectives, how many trials none dominates so far; else 0.
        latency_ms: as predicted; None where latency is neither limited nor minimised.
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


@dataclass(frozen=True)
class EpochDone:
    """An epoch of a full training has ended; the score is its metric on the validation part."""

    epoch: int
    epochs: int
    loss: float
    score: float
    seconds: float


Event = Stage | Counted | TrialDone | EpochDone
Watcher = Callable[[Event], None]

GIVEN_WATCH = (Callable, NoneType)
"""Classes of an argument that may be a watcher."""


def silent(event: Event) -> None:
    """Watch nothing."""
