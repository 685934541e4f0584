"""Hands the jobs of a race to an engine, one stage after the other. Each job ends with one score.

Example:
    runner = RaceRunner(study, next_jobs, device="cpu", on_score=store, on_death=drop)
    run_engine("processes", runner, make_trainer, workers=Workers(2))
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence

from autoprune.config.rungs import RungScore
from autoprune.engines._runner import Job
from autoprune.engines._workers import MAX_DEATHS
from autoprune.errors import TrialError
from autoprune.study import SearchStudy


class RaceRunner:
    """Runs the jobs of a race, and passes on their scores.

    Args:
        study: the study of the race.
        next_jobs: returns the jobs of the next stage, or none after the last one. It is called when all
            earlier jobs have ended.
        device: name of the device that trains.
        on_score: called with the number of a trial and its score.
        on_death: called with the number of a trial whose worker died again and again, and the cause.
    """

    def __init__(
        self,
        study: SearchStudy,
        next_jobs: Callable[[], Sequence[Job]],
        *,
        device: str,
        on_score: Callable[[int, RungScore], None],
        on_death: Callable[[int, str], None],
    ) -> None:
        self.study = study
        self.device = device
        self._next_jobs = next_jobs
        self._waiting = deque(next_jobs())
        self._running: set[int] = set()
        self._deaths: Counter[int] = Counter()
        self._on_score = on_score
        self._on_death = on_death

    def left(self) -> int:
        """Return the number of jobs of this stage that have not ended, or of the next one if all have."""
        if not (self._waiting or self._running):
            self._waiting.extend(self._next_jobs())
        return len(self._waiting) + len(self._running)

    def ask(self) -> Job | None:
        """Return the next job, or None if none is left, or if the stage waits for its last jobs."""
        if not (self.left() and self._waiting):
            return None
        job = self._waiting.popleft()
        self._running.add(job.number)
        return job

    def begin(self, job: Job) -> None:
        """Do nothing: the trainer measures its own time."""

    def report(self, job: Job, rung: RungScore) -> bool:
        """Pass on the score, after which the job ends."""
        self._on_score(job.number, rung)
        return False

    def finish(self, job: Job) -> None:
        """End the job."""
        self._running.discard(job.number)

    def fail(self, job: Job, reason: str) -> None:
        """End the race, because an error is no result of the candidate, unlike a training that diverges.

        Raises:
            TrialError: always.
        """
        raise TrialError(f"{self.study.name}: race: trial {job.number}: {reason}")

    def requeue(self, job: Job) -> None:
        """Queue the job again. Its training resumes after its last epoch."""
        self._running.discard(job.number)
        self._waiting.append(job)

    def bury(self, job: Job, how: str) -> None:
        """Queue the job of a dead worker once more, or give it up."""
        self._deaths[job.number] += 1
        if self._deaths[job.number] < MAX_DEATHS:
            self.requeue(job)
        else:
            self._running.discard(job.number)
            self._on_death(job.number, f"its worker process died {MAX_DEATHS} times ({how}).")
