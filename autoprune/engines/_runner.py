"""What an engine works on: jobs, the runner that hands them out, and the scorer that scores them.

Example:
    while (job := runner.ask()) is not None:
        for rung in scorer(job.widths, job.variant):
            if not runner.report(job, rung):
                break
        runner.finish(job)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from autoprune.config.rungs import RungScore
from autoprune.space import Candidate
from autoprune.study import SearchStudy

Scorer = Callable[[Candidate, Any], Iterator[RungScore]]
"""From (widths, variant) to the scores of one rung after the other. The caller may stop after any rung."""

MakeScorer = Callable[[], Scorer]
"""Makes the scorer in the process that uses it. Engines with several processes pickle it."""


@dataclass(frozen=True)
class Job:
    """A request to score the widths of a trial.

    Attributes:
        number: of the trial.
        widths: its candidate.
        variant: which score is requested, which can be pickled: the seed of a trial, or the stage of a race.
        claim: identifies this attempt, on all machines.
    """

    number: int
    widths: Candidate
    variant: Any
    claim: str


class Runner(Protocol):
    """Hands out jobs and takes their scores, in the process of the search.

    `TrialRunner` does so for the trials of a search, and `RaceRunner` for a race. After `ask`,
    an engine calls `report` for each rung, and then one of `finish`, `fail`, `requeue` and `bury`.

    Attributes:
        study: the study that stores the results.
        device: name of the device that computes the scores.
    """

    study: SearchStudy
    device: str

    def left(self) -> int:
        """Return the number of jobs that have not ended."""

    def ask(self) -> Job | None:
        """Return the next job, or None if there is none now. Ask again after each job that ends."""

    def begin(self, job: Job) -> None:
        """Start the job's clock again, if an engine took the job before a worker was ready."""

    def report(self, job: Job, rung: RungScore) -> bool:
        """Record a rung's score. Return whether the job climbs on."""

    def finish(self, job: Job) -> None:
        """Record that the job ended after its last report."""

    def fail(self, job: Job, reason: str) -> None:
        """Record that the job failed."""

    def requeue(self, job: Job) -> None:
        """Queue the job again, from the start."""

    def bury(self, job: Job, how: str) -> None:
        """Handle the death of the process that scored the job. `how` is the cause, as far as it is known."""
