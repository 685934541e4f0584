"""The engines: who runs trials, never what a trial is. One row of ENGINES an engine.

Before: `pipeline` has a study, a space and a scorer; after: the study holds the finished trials.

    runner = TrialRunner(study, space, sampler="tpe", trials=60, rungs=2, seed=0)
    run_search("serial", runner, make_scorer)

A new engine is a function (runner, make_scorer, workers) in a file of its own, and one row here; what it
needs beyond autoprune's own packages is imported when it runs, and asked for by `check_engine` before.
"""

from __future__ import annotations

from collections.abc import Callable

from autoprune.engines._pruners import PRUNERS, check_pruner
from autoprune.engines._trial_runner import Job, MakeScorer, Scorer, TrialEvent, TrialRunner
from autoprune.engines._workers import Workers
from autoprune.engines.processes import check_processes, run_processes
from autoprune.engines.ray import check_ray, run_ray
from autoprune.engines.serial import run_serial
from autoprune.errors import ConfigError, unknown

Engine = Callable[[TrialRunner, MakeScorer, Workers], None]

ENGINES: dict[str, Engine] = {
    "serial": run_serial,
    "processes": run_processes,
    "ray": run_ray,
}

_CHECKS: dict[str, Callable[[Workers, str | None], None]] = {
    "processes": check_processes,
    "ray": check_ray,
}
"""For the engines that need more than this process: raises a ConfigError where it is not there."""

__all__ = [
    "ENGINES",
    "PRUNERS",
    "Engine",
    "Job",
    "MakeScorer",
    "Scorer",
    "TrialEvent",
    "TrialRunner",
    "Workers",
    "check_engine",
    "check_pruner",
    "run_search",
]


def check_engine(engine: str, workers: Workers, device: str | None = None) -> None:
    """Refuse an engine that cannot run here, before a search has cost anything.

    Args:
        engine: a row of ENGINES.
        workers: how many trials at once, and what each may use.
        device: on which trials compute, by torch's name; None where that is not known yet.

    Raises:
        ConfigError: it is unknown (the nearest is named), or what it needs is not there.
    """
    if engine not in ENGINES:
        raise ConfigError(unknown("search.engine", engine, ENGINES))
    if engine in _CHECKS:
        _CHECKS[engine](workers, device)


def run_search(
    engine: str,
    runner: TrialRunner,
    make_scorer: MakeScorer,
    *,
    workers: int | Workers = 1,
    other_hosts_are_gone: bool = False,
) -> None:
    """Run a search, or go on with one, until its study has all its trials.

    Trials that a dead process left running are queued again first. Whatever ends the search early (Ctrl-C, an
    error) leaves no trial behind as running, and no finished one lost.

    Args:
        engine: a row of ENGINES.
        runner: the trials' lifecycle.
        make_scorer: makes the scorer where it is used; picklable for engines with several processes.
        workers: how many trials at once, for engines that run several; or what each of them may use, too.
        other_hosts_are_gone: queue trials again that other hosts hold, too.

    Searches on other machines, or a second one here, may work on the study at the same time. Where they make
    the last trials at the same moment, the study ends with a trial more for each of them, at most.

    Raises:
        ConfigError: the engine is unknown, or cannot run here.
        StudyError: the storage cannot be used, or every trial fails.
    """
    given = workers if isinstance(workers, Workers) else Workers(workers)
    check_engine(engine, given, runner.device)
    runner.study.requeue_dead(other_hosts=other_hosts_are_gone)
    try:
        if runner.left():
            ENGINES[engine](runner, make_scorer, given)
    finally:
        runner.study.release()
