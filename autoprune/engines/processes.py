"""The engine of several worker processes: workers score, and this process alone accesses the storage.

Example:
    run_processes(runner, make_scorer, Workers(2))

If a worker dies (kill -9, out of memory), it is replaced, and its trial is queued once more. If that happens
again, the trial is recorded as failed. Workers exit by themselves when this process dies.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from autoprune.engines._runner import Job, MakeScorer, Runner
from autoprune.engines._workers import WorkerHealth, Workers, environment
from autoprune.engines.serial import climb
from autoprune.errors import StudyError, TrialError, is_lost_gpu, summary_of
from autoprune.support.exits import describe_exit

_STOP_TIMEOUT_S = 5.0

_SAFE_PATH = "PYTHONSAFEPATH"
"""The variable that keeps the current folder out of an interpreter's import path, as -P does."""

_ENDING = {signal.SIGINT, signal.SIGTERM} | ({signal.SIGHUP} if hasattr(signal, "SIGHUP") else set())
"""Signals that end a search. Windows has no SIGHUP."""


@dataclass
class _Worker:
    """A worker as this process sees it. `job` is the job that it works on, if any."""

    process: BaseProcess
    pipe: Connection
    ready: bool = False
    job: Job | None = None
    broken: bool = False


def run_processes(runner: Runner, make_scorer: MakeScorer, workers: Workers) -> None:
    """Run jobs on spawned workers until none is left.

    Args:
        runner: hands out the jobs.
        make_scorer: called once in each worker. It is pickled.
        workers: number of processes, and their threads.

    Raises:
        StudyError: workers cannot be started, or too many in a row die before they are ready.
    """
    pool: list[_Worker] = []
    health = WorkerHealth(runner.study.name, workers.number)
    try:
        for _ in range(min(workers.number, runner.left())):
            _spawn(pool, make_scorer, workers.threads)
        while any(worker.job is not None or not worker.ready for worker in pool) or _feed(runner, pool):
            ends = {worker.pipe: worker for worker in pool}
            for pipe in wait(list(ends)):
                worker = ends[pipe]  # type: ignore[index]  # wait() returns the very objects that it was given
                try:
                    message = worker.pipe.recv()
                except (EOFError, OSError):
                    _bury(runner, worker, health)
                    pool.remove(worker)
                    if len(pool) < runner.left():
                        _spawn(pool, make_scorer, workers.threads)
                else:
                    _handle(runner, worker, message, health)
            _feed(runner, pool)
    finally:
        _stop(pool)


def _feed(runner: Runner, pool: list[_Worker]) -> bool:
    """Give every free worker a job while the study has any. Return whether a job was given."""
    fed = False
    for worker in pool:
        if worker.ready and worker.job is None:
            job = runner.ask()
            if job is None:
                break
            worker.job = job
            fed = True
            with contextlib.suppress(OSError):  # a worker that just died is noticed at its pipe's end
                worker.pipe.send((job.widths, job.variant))
    return fed


def _handle(runner: Runner, worker: _Worker, message: tuple[str, Any], health: WorkerHealth) -> None:
    """Handle one message of a worker: ready, broken, rung, done or failed."""
    kind, content = message
    if kind == "ready":
        worker.ready = True
        health.note_working()
    elif kind == "broken":
        worker.broken = True  # its process ends now
        health.note_broken(content)
    elif worker.job is None:
        raise StudyError(f"{runner.study.name}: a worker sent {kind!r} without a trial.")
    elif kind == "rung":
        go_on = runner.report(worker.job, content)
        with contextlib.suppress(OSError):
            worker.pipe.send(go_on)
    else:
        job, worker.job = worker.job, None
        if kind == "done":
            runner.finish(job)
        else:
            worker.broken = is_lost_gpu(content)  # then its process ends now
            worker.ready = not worker.broken
            runner.fail(job, content)


def _bury(runner: Runner, worker: _Worker, health: WorkerHealth) -> None:
    """Queue the trial of a dead worker once more, or fail it if that happened before."""
    worker.process.join(_STOP_TIMEOUT_S)
    job, worker.job = worker.job, None
    how = describe_exit(worker.process.exitcode)
    if job is not None:
        runner.bury(job, how)
    elif not worker.ready and not worker.broken:
        health.note_death(how)


def _spawn(pool: list[_Worker], make_scorer: MakeScorer, threads: int) -> None:
    """Start a worker and add it to the pool. It does both or neither: only the pool is stopped at the end."""
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    # A daemonic process may have no children, and DataLoaders have workers of their own.
    arguments = (make_scorer, theirs, threads, os.environ.get(_SAFE_PATH))
    process = context.Process(target=_work, args=arguments, daemon=False)
    try:
        # OpenMP reads the limit of threads once, when it is loaded. A new interpreter imports parts of Python
        # before it has this process's `sys.path`, and the current folder may hold modules with their names.
        with environment({"OMP_NUM_THREADS": str(threads), _SAFE_PATH: "1"}), _started_whole():
            process.start()
            pool.append(_Worker(process, mine))
    except Exception as error:  # pickling may raise any error of a model's or a data set's parts
        mine.close()
        theirs.close()
        raise StudyError(
            f"search.engine: model or data cannot be handed to worker processes ({summary_of(error)}). "
            'Define their classes and functions at the top of a module, or use engine = "serial".'
        ) from error
    theirs.close()


@contextlib.contextmanager
def _started_whole() -> Iterator[None]:
    """Delay ending signals until after the block, so that no process is left half started.

    Processes that start inside inherit the mask. So Ctrl-C, which reaches all processes, does not end them
    while they import torch.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its own start would unblock the signal again
    with _deferred_signals():
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _deferred_signals() -> Iterator[None]:
    """Catch ending signals inside the block, and raise the first of them again after it.

    The mask of this thread is not enough: if another thread gets a signal, Python runs its handler in the
    main thread all the same.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seen: list[int] = []
    before = {number: signal.signal(number, lambda number, frame: seen.append(number)) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        if seen:
            signal.raise_signal(seen[0])


def _stop(pool: list[_Worker]) -> None:
    for worker in pool:
        worker.pipe.close()
        worker.process.kill()  # it holds nothing that could get lost
    for worker in pool:
        worker.process.join(_STOP_TIMEOUT_S)


def _work(make_scorer: MakeScorer, pipe: Connection, threads: int, safe_path: str | None) -> None:
    """Score jobs until the pipe closes. This is the body of a worker process."""
    import torch

    if safe_path is None:  # processes that the user's code starts import as usual
        os.environ.pop(_SAFE_PATH, None)
    # Ctrl-C and a terminal that is closed reach all processes. The parent alone decides.
    for number in _ENDING - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    torch.set_num_threads(threads)
    with contextlib.suppress(EOFError, OSError):  # of the pipe, whose other end is gone
        _serve(make_scorer, pipe)


def _serve(make_scorer: MakeScorer, pipe: Connection) -> None:
    try:
        scorer = make_scorer()
    except Exception as error:
        pipe.send(("broken", summary_of(error)))
        return
    pipe.send(("ready", None))
    while True:
        widths, variant = pipe.recv()
        try:
            for rung in climb(scorer, widths, variant):
                pipe.send(("rung", rung))
                if not pipe.recv():
                    break
            pipe.send(("done", None))
        except TrialError as error:
            pipe.send(("failed", str(error)))
            if is_lost_gpu(str(error)):
                return


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
