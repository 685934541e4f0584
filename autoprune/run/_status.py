"""The state of a search at one moment, as other processes see it. Nothing is written to the study.

Example:
    for status in follow("digits", "sqlite:///runs/digits.db"):
        print(status.done, status.left_s)
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from autoprune.errors import StudyError, shown_url
from autoprune.reporting import StudySummary, summarise
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._resolving.stored_config import stored_spec
from autoprune.run._trials.race_plan import entrants_of, race_epochs, stage_ends, uniform_of
from autoprune.run._trials.retraining import training_settings
from autoprune.study import ENDED, RaceEntry, SearchStudy, TrialRecord, open_study, processes, study_command
from autoprune.support.leases import Lease, is_alive

RECENT = 20
"""Number of the last trials whose pace counts."""

PATIENCE = 3
"""Reads of a study in a row that may fail, because its storage is busy or half written, before it counts."""


@dataclass(frozen=True)
class Worker:
    """A process that works on a study.

    Attributes:
        host: name of its machine.
        pid: its number there.
        phase: what it does, such as "trials" or "race".
        is_alive: whether it lives, or None if it is on another host and cannot be seen from here.
        trials: {number of a trial that it runs: seconds since it began}.
    """

    host: str
    pid: int
    phase: str
    is_alive: bool | None
    trials: dict[int, float]


@dataclass(frozen=True)
class Entrant:
    """An entrant of a race that runs: its trial, the epochs that it is trained for, its score or failure."""

    trial: int
    origin: str
    epochs: int
    score: float | None
    failure: str | None


@dataclass(frozen=True)
class RaceStatus:
    """A race that runs.

    Attributes:
        entrants: those that are trained so far, the best first.
        expected: number of all entrants.
        ends: the epochs after which the stages end.
        left_s: seconds until its end at the pace so far, or None before the first stage of an entrant.
    """

    entrants: tuple[Entrant, ...]
    expected: int
    ends: tuple[int, ...]
    left_s: float | None


@dataclass(frozen=True)
class StudyStatus:
    """A search at one moment.

    Attributes:
        summary: its study.
        storage: URL of the storage, without a password.
        trials: number of trials that are planned.
        done: number of trials that have ended.
        reached: {rung: number of trials with a score on it}.
        per_hour: trials an hour at the pace of the last ones, or None before the first.
        left_s: seconds until the last trial ends at this pace, or None if it is not known.
        heard_s: seconds since a trial last began or ended, or None before the first.
        workers: the processes that work on the study, and those of trials that were killed.
        failed: the last trials that failed, the latest first.
        race: the race while it runs, else None.
        is_finished: whether nothing is left to do.
        resume: the command that goes on if these processes are gone, or "" if nothing is left to do.
    """

    summary: StudySummary
    storage: str
    trials: int
    done: int
    reached: dict[str, int]
    per_hour: float | None
    left_s: float | None
    heard_s: float | None
    workers: tuple[Worker, ...]
    failed: tuple[TrialRecord, ...]
    race: RaceStatus | None
    is_finished: bool
    resume: str

    @property
    def at_work(self) -> tuple[Worker, ...]:
        """The processes that live, or may live on another host."""
        return tuple(worker for worker in self.workers if worker.is_alive is not False)


def follow(
    study: str,
    storage: str,
    *,
    interval: float = 5.0,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[StudyStatus]:
    """Yield the state of a search now, and again after each interval, until nothing is left to do.

    The storage stays open. After a failure it is opened again.

    Args:
        study: name of the study.
        storage: URL of its storage.
        interval: seconds between two states.
        sleep: waits for a number of seconds.

    Raises:
        StudyError: the study does not exist, or it could not be read several times in a row.
    """
    opened, failures = open_study(storage, study), 0
    while True:
        try:
            if failures:
                opened = open_study(storage, study)
            else:
                opened.reread()
            status = status_of(opened)
        except StudyError:
            failures += 1
            if failures == PATIENCE:
                raise
        else:
            failures = 0
            yield status
            if status.is_finished:
                return
        sleep(interval)


def status_of(study: SearchStudy, now: float | None = None) -> StudyStatus:
    """Return the state of a search.

    Args:
        study: its study.
        now: the time in seconds of `time.time`, by default this moment.
    """
    now = time.time() if now is None else now
    spec, summary = stored_spec(study), summarise(study)
    with study.storage_errors():
        frozen = study.optuna.get_trials(deepcopy=False)
    done = sum(record.has_ended for record in summary.records)
    workers = _workers(study, frozen, now)
    at_work = [worker for worker in workers if worker.is_alive is not False]
    per_hour = _per_hour(frozen)
    left = max(0, spec.search.trials - done)
    race = _race(study, spec, summary) if any(worker.phase == "race" for worker in at_work) else None
    is_finished = not at_work and _is_done(study, spec, summary, left)
    foreign = any(worker.is_alive is None for worker in workers)
    resume = study_command("resume", study.name, study.url, *(["--take-over"] if foreign else []))
    return StudyStatus(
        summary=summary,
        storage=shown_url(study.url),
        trials=spec.search.trials,
        done=done,
        reached=_reached(summary),
        per_hour=per_hour,
        left_s=None if per_hour is None else 3600 * left / per_hour,
        heard_s=_heard_s(frozen, now),
        workers=workers,
        failed=_failed(summary, frozen),
        race=race,
        is_finished=is_finished,
        resume="" if is_finished else resume,
    )


def _workers(study: SearchStudy, frozen: Sequence[FrozenTrial], now: float) -> tuple[Worker, ...]:
    """Return the processes of the notes, and those that hold trials without a note."""
    phases = {each.lease: each.phase for each in processes(study) if each.phase != ENDED}
    held: dict[Lease, dict[int, float]] = {lease: {} for lease in phases}
    began = {trial.number: trial.datetime_start for trial in frozen}
    for number, lease in study.unended().items():
        if lease is not None:
            start = began.get(number)
            held.setdefault(lease, {})[number] = 0.0 if start is None else max(0.0, now - start.timestamp())
    return tuple(
        Worker(lease.host, lease.pid, phases.get(lease, "trials"), is_alive(lease), trials)
        for lease, trials in held.items()
    )


def _reached(summary: StudySummary) -> dict[str, int]:
    reached = dict.fromkeys(summary.rungs, 0)
    for record in summary.records:
        for score in record.scores:
            reached[score.name] = reached.get(score.name, 0) + 1
    return reached


def _per_hour(frozen: Sequence[FrozenTrial]) -> float | None:
    """Return the trials an hour of the last ones, without the time in which no trial ran.

    A search that was stopped overnight is not slower for that.
    """
    spans = sorted(
        (trial.datetime_start.timestamp(), trial.datetime_complete.timestamp())
        for trial in frozen
        if trial.datetime_start is not None and trial.datetime_complete is not None
    )
    recent = sorted(spans, key=lambda span: span[1])[-RECENT:]
    busy, end = 0.0, float("-inf")
    for start, stop in sorted(recent):
        busy += max(0.0, stop - max(start, end))
        end = max(end, stop)
    return 3600 * len(recent) / busy if busy > 0 else None


def _heard_s(frozen: Sequence[FrozenTrial], now: float) -> float | None:
    times: list[datetime.datetime] = [
        moment for trial in frozen for moment in (trial.datetime_start, trial.datetime_complete) if moment
    ]
    return max(0.0, now - max(times).timestamp()) if times else None


def _failed(summary: StudySummary, frozen: Sequence[FrozenTrial]) -> tuple[TrialRecord, ...]:
    ended = {trial.number: trial.datetime_complete for trial in frozen}
    failed = [record for record in summary.records if record.state == "failed"]

    def moment(record: TrialRecord) -> tuple[float, int]:
        at = ended.get(record.number)
        return (0.0 if at is None else at.timestamp(), record.number)

    return tuple(sorted(failed, key=moment, reverse=True))


def _is_done(study: SearchStudy, spec: RunSpec, summary: StudySummary, left: int) -> bool:
    """Return whether a search that no process works on has ended, rather than been stopped or killed."""
    if study.unended():
        return False
    if any(process.phase == ENDED for process in processes(study)):
        return True
    if left:
        return False
    whole = [record for record in summary.records if record.is_whole]
    races = spec.has_race and len(whole) > 1 and len(entrants_of(study, spec.race.entrants)) > 1
    return not races or summary.race is not None


def _race(study: SearchStudy, spec: RunSpec, summary: StudySummary) -> RaceStatus | None:
    """Return the race that runs, or None before its entrants are known."""
    if not any(record.is_whole for record in summary.records):
        return None
    settings, ends = training_settings(spec), stage_ends(spec.finetune.epochs)
    entrants = entrants_of(study, spec.race.entrants)
    entries = [
        (record, entry)
        for record in entrants
        if (entry := study.race_entry(record.number)) is not None and entry.settings == settings
    ]
    found = [_entrant(record, entry) for record, entry in entries]
    trained = sum(max((stage.epochs for stage in entry.stages), default=0) for _, entry in entries)
    seconds = sum(stage.seconds for _, entry in entries for stage in entry.stages)
    uniform = uniform_of(entrants) is not None
    total = race_epochs(spec.finetune.epochs, len(entrants) - uniform, uniform=uniform)
    at_once = 1 if spec.search.engine == "serial" else min(spec.search.workers, len(entrants))
    left = max(0.0, total - trained) * seconds / trained / at_once if trained else None
    ranked = sorted(found, key=lambda each: (each.failure is not None, -each.epochs, -(each.score or 0.0)))
    return RaceStatus(tuple(ranked), len(entrants), ends, left)


def _entrant(record: TrialRecord, entry: RaceEntry) -> Entrant:
    last = entry.last if entry.stages else None
    failure = entry.failures[-1].reason if entry.failures else None
    return Entrant(
        trial=record.number,
        origin=record.origin,
        epochs=0 if last is None else last.epochs,
        score=None if last is None else last.score,
        failure=failure,
    )
