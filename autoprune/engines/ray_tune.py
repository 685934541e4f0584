"""Runs the trials of a search as trials of Ray Tune. Each rung is an iteration.

Example:
    tune_trials(runner, pack(make_scorer), Workers(2, cpus=1, gpus=0), folder="/tmp/x")

This module loads Ray, so it is imported only if a search runs on Ray. A trial of Tune is one attempt at a
trial of the study. If its worker dies, the study's trial is queued again and becomes another trial of Tune.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ray.cloudpickle
from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import ConcurrencyLimiter, Searcher

from autoprune.config.rungs import RungScore
from autoprune.engines._runner import Job, MakeScorer, Runner, Scorer
from autoprune.engines._workers import WorkerHealth, Workers
from autoprune.engines.serial import climb
from autoprune.errors import StudyError, TrialError, reason_of, summary_of

MAX_CRASHES = 3
"""Failures of Tune itself, with no trial that ended in between, after which the search ends."""

_log = logging.getLogger(__name__)


def pack(make_scorer: MakeScorer) -> bytes:
    """Pickle `make_scorer`, with its classes if a script or a notebook defines them.

    Raises:
        StudyError: it cannot be pickled.
    """
    try:
        return bytes(ray.cloudpickle.dumps(make_scorer))  # type: ignore[no-untyped-call]  # ray leaves it untyped
    except Exception as error:  # parts of a model or a data set may raise any error
        raise StudyError(
            f"search.engine: model or data cannot be handed to Ray's workers ({summary_of(error)}). Use "
            'engine = "serial".'
        ) from error


def tune_trials(runner: Runner, parcel: bytes, workers: Workers, folder: str) -> None:
    """Let Tune run jobs until none is left.

    Args:
        runner: hands out the jobs.
        parcel: from `pack`.
        workers: number of trials at once, and the CPUs and GPUs of each, all of them numbers.
        folder: the folder of Tune's own state, which nothing reads.

    Raises:
        StudyError: a scorer cannot be made, workers die before they are ready, or Tune fails again and again.
    """
    crashes = 0
    for attempt in itertools.count():
        bridge = Bridge(runner, workers.number)
        try:
            _run(bridge, parcel, workers, f"{folder}/{attempt}")
        except Exception as error:
            bridge.abandon()
            if bridge.error is not None or isinstance(error, StudyError):
                raise bridge.error or error from None
            crashes = 1 if bridge.ended else crashes + 1
            if crashes == MAX_CRASHES:
                name = runner.study.name
                raise StudyError(f"{name}: Ray Tune failed {crashes} times ({reason_of(error)}).") from error
            _log.warning("Ray Tune failed (%s), so the search goes on with a new one", reason_of(error))
        else:
            if bridge.error is not None:
                raise bridge.error
            return


def _run(bridge: Bridge, parcel: bytes, workers: Workers, folder: str) -> None:
    here = Here(os.getcwd(), tuple(path for path in sys.path if path), workers.threads)
    each = {"CPU": workers.cpus or 0, "GPU": workers.gpus or 0}
    tune.run(
        tune.with_parameters(Climb, parcel=parcel, here=here),
        search_alg=ConcurrencyLimiter(StudySearcher(bridge), max_concurrent=workers.number),
        scheduler=StudyScheduler(bridge),
        num_samples=-1,
        resources_per_trial=tune.PlacementGroupFactory([each]),
        reuse_actors=True,  # a scorer holds model and data, and is made once a worker, not once a trial
        max_failures=0,  # the study queues trials again, not Tune
        raise_on_failed_trial=False,
        stop=bridge.end,
        callbacks=[StartNote(bridge)],
        storage_path=folder,
        name="search",
        trial_name_creator=_trial_name,
        trial_dirname_creator=_trial_name,
        verbose=0,
    )


def _trial_name(trial: Trial) -> str:
    return f"trial_{trial.config['job'].number}_{trial.trial_id}"


class Bridge:
    """Maps trials of Tune to trials of the study, for Tune's searcher and scheduler.

    An error of the study ends Tune's run and is kept in `error`, because Tune would change its type. `ended`
    is the number of the study's trials that ended, and `cause` is Ray's last report on a dead worker.
    """

    def __init__(self, runner: Runner, number: int) -> None:
        self.error: Exception | None = None
        self.end = End()
        self.ended = 0
        self._runner = runner
        self._health = WorkerHealth(runner.study.name, number)
        self._jobs: dict[str, Job] = {}
        self._started: set[str] = set()
        self._exhausted = False
        self.cause = "no reason is known"

    def propose(self, key: str) -> Job | None:
        """Return a job for Tune's trial `key`, or None if the study has none to give now."""
        job = None
        if not self._exhausted:
            with self._keeping_errors():
                job = self._runner.ask()
        if job is None:
            self._exhausted = True  # until a trial ends: it may return to the queue, or the next stage begins
        else:
            self._jobs[key] = job
        return job

    @property
    def finished(self) -> bool:
        """Whether no trial is left, and no running trial can return to the queue."""
        return self.end.reached or (self._exhausted and not self._jobs)

    def report(self, key: str, rung: RungScore) -> bool:
        """Record a score. Return whether the trial climbs on."""
        go_on = False
        self._health.note_working()
        with self._keeping_errors():
            go_on = self._runner.report(self._jobs[key], rung)
        return go_on

    def conclude(self, key: str, result: Mapping[str, Any]) -> None:
        """Record how a trial ended whose worker lives."""
        job = self._jobs.pop(key, None)
        if job is None or self.end.reached:
            return
        self._exhausted = False
        with self._keeping_errors():
            if result.get("broken"):
                self._health.note_broken(result["broken"], f" on {result['host']}")
                self._runner.requeue(job)
                return
            if result.get("failure"):
                self._runner.fail(job, result["failure"])
            else:
                self._runner.finish(job)
            self.ended += 1

    def bury(self, key: str) -> None:
        """Queue the trial of a dead worker once more, or fail it if that happened before."""
        job = self._jobs.pop(key, None)
        if job is None or self.end.reached:
            return
        with self._keeping_errors():
            if key not in self._started:
                self._health.note_death(f"{self.cause}, see Ray's logs in /tmp/ray on their machines")
                self._runner.requeue(job)
            else:
                self._runner.bury(
                    job, "a crash, out of memory, or its machine left the cluster? Ray names no signal"
                )
        self._exhausted = False

    def begin(self, key: str) -> None:
        """Note that a trial's worker is ready."""
        self._started.add(key)
        if key in self._jobs:
            self._runner.begin(self._jobs[key])

    def abandon(self) -> None:
        """Queue all running trials again, because Tune lost them."""
        with self._keeping_errors():
            for job in self._jobs.values():
                self._runner.requeue(job)
        self._jobs.clear()

    @contextlib.contextmanager
    def _keeping_errors(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.error = error
            self.end.reached = True


class End(tune.Stopper):
    """Ends Tune's run as soon as `reached` is set. It holds this value alone, because Tune pickles it."""

    def __init__(self) -> None:
        self.reached = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no single trial."""
        return False

    def stop_all(self) -> bool:
        """Return whether the run has to end."""
        return self.reached


class StudySearcher(Searcher):
    """Proposes the study's jobs to Tune, and reports to the study how trials ended. It has no state."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()
        self._bridge = bridge

    def suggest(self, trial_id: str) -> Any:
        """Return a job for one of Tune's trials, or FINISHED if the study has all its trials."""
        job = self._bridge.propose(trial_id)
        if job is not None:
            return {"job": job}
        return Searcher.FINISHED if self._bridge.finished else None

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """End the study's trial. An error means that the worker died, since `Climb` raises nothing."""
        if error:
            self._bridge.bury(trial_id)
        else:
            self._bridge.conclude(trial_id, result or {})

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: the study is the state."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing: the study is the state."""


class StudyScheduler(FIFOScheduler):
    """Stops trials by the search's pruner, in the order in which their scores arrive."""

    def __init__(self, bridge: Bridge) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # ray leaves it untyped
        self._bridge = bridge

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Record a rung, and stop the trial unless it climbs on."""
        go_on = self._bridge.report(trial.trial_id, result["rung"])
        return TrialScheduler.CONTINUE if go_on else TrialScheduler.STOP

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """Note Ray's report on a worker's death, before the searcher handles the death."""
        super().on_trial_error(tune_controller, trial)
        text = Path(trial.error_file).read_text("utf-8", "replace") if trial.error_file else ""
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if lines:
            self._bridge.cause = lines[-1]


class StartNote(tune.Callback):
    """Notes which trials have a worker."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Note that this trial has a worker."""
        self._bridge.begin(trial.trial_id)


@dataclasses.dataclass(frozen=True)
class Here:
    """The folder, import paths and threads that a worker takes over from this process."""

    folder: str
    paths: tuple[str, ...]
    threads: int

    def settle(self) -> None:
        """Apply them to the calling process. A folder that its machine lacks is left out."""
        import torch

        if os.path.isdir(self.folder):
            os.chdir(self.folder)
        sys.path.extend(path for path in self.paths if path not in sys.path)
        torch.set_num_threads(self.threads)


class Climb(tune.Trainable):
    """Scores one trial after the other in a worker. An iteration of Tune is a rung."""

    def setup(self, config: dict[str, Any], **given: Any) -> None:
        """Make the scorer, and begin the first trial."""
        self._here: Here = given["here"]
        self._parcel: bytes = given["parcel"]
        self._scorer: Scorer | None = None
        self._broken = ""
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial."""
        job: Job = new_config["job"]
        if self._scorer is None:
            self._scorer = self._make_scorer()
        self._rungs = iter(()) if self._scorer is None else climb(self._scorer, job.widths, job.variant)
        return True

    def _make_scorer(self) -> Scorer | None:
        """Return the scorer, or None after an error. `step` reports it. If raised, it would be a death."""
        try:
            self._here.settle()
            scorer: Scorer = ray.cloudpickle.loads(self._parcel)()
        except Exception as error:
            self._broken = summary_of(error)
            return None
        return scorer

    def step(self) -> dict[str, Any]:
        """Climb one rung: {"rung": its score}, or how the trial ended."""
        if self._scorer is None:
            return {"done": True, "broken": self._broken, "host": socket.gethostname()}
        try:
            rung = next(self._rungs, None)
        except TrialError as error:
            return {"done": True, "failure": str(error)}
        return {"done": True} if rung is None else {"rung": rung}
