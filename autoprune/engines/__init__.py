"""Engines run the trials of a search, and pruners stop weak trials. Each is a row of ENGINES or PRUNERS.

Example:
    runner = TrialRunner(study, space, sampler="tpe", trials=60, rungs=2, seed=0)
    run_search("serial", runner, make_scorer)

A new engine is a function (runner, make_scorer, workers) in a file of its own, and a row in ENGINES. If it
needs packages that autoprune does not require, it imports them when it runs, and its check refuses a machine
that lacks them. A new pruner is a function from the number of rungs to a pruner of Optuna's, and a row in
PRUNERS.

Engines and pruners of your own need no row. A config names the function or the spec, such as
`engine = "mypkg.search:verbose"` and `pruner = "mypkg.search:floor"`:

    from optuna.pruners import BasePruner, ThresholdPruner
    from autoprune.engines import EngineSpec, MakeScorer, Runner, Workers, run_trial

    def run_verbose(runner: Runner, make_scorer: MakeScorer, workers: Workers) -> None:
        scorer = make_scorer()
        while (job := runner.ask()) is not None:
            print("trial", job.number, dict(job.widths))
            run_trial(runner, scorer, job)

    verbose = EngineSpec(run_verbose, parallel=False)

    def floor(rungs: int) -> BasePruner:
        return ThresholdPruner(lower=0.5)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from autoprune.engines._pruners import PRUNERS, PrunerSpec, find_pruner, rung_step
from autoprune.engines._race_runner import RaceRunner
from autoprune.engines._runner import Job, MakeScorer, Runner, Scorer
from autoprune.engines._trial_runner import TrialEvent, TrialRunner
from autoprune.engines._workers import Workers, check_cores
from autoprune.engines.processes import run_processes
from autoprune.engines.ray import check_ray, run_ray
from autoprune.engines.serial import run_serial, run_trial
from autoprune.support.rows import Row, find_row, guarding

Engine = Callable[[Runner, MakeScorer, Workers], None]
"""Runs jobs until none is left."""


@dataclass(frozen=True)
class EngineSpec(Row):
    """A row of ENGINES.

    Attributes:
        run: runs the trials.
        check: called with the workers and the device (None if it is not known yet). Raises a ConfigError if
            the engine cannot run here.
        parallel: whether other processes score the trials. If not, this process does, with the threads of a
            trial.
        joins_cluster: whether it connects to `search.ray.address`. Answers from there may run code.
    """

    run: Engine
    check: Callable[[Workers, str | None], None] | None = None
    parallel: bool = True
    joins_cluster: bool = False


ENGINES: dict[str, EngineSpec] = {
    "serial": EngineSpec(run_serial, parallel=False, about="one trial at a time, in this process"),
    "processes": EngineSpec(
        run_processes,
        check_cores,
        reads=("search.workers", "search.cpus_per_trial"),
        about="several processes on this machine",
    ),
    "ray": EngineSpec(
        run_ray,
        check_ray,
        joins_cluster=True,
        reads=("search.workers", "search.cpus_per_trial", "search.ray"),
        about="Ray Tune, on this machine or on a cluster",
    ),
}

__all__ = [
    "ENGINES",
    "PRUNERS",
    "Engine",
    "EngineSpec",
    "Job",
    "MakeScorer",
    "PrunerSpec",
    "RaceRunner",
    "Runner",
    "Scorer",
    "TrialEvent",
    "TrialRunner",
    "Workers",
    "check_engine",
    "find_engine",
    "find_pruner",
    "run_engine",
    "run_search",
    "run_trial",
    "rung_step",
]


def find_engine(name: str) -> EngineSpec:
    """Return a row of ENGINES, or the user's own from "package.module:function".

    Raises:
        ConfigError: there is no such row (the nearest is suggested), or no such function.
    """
    return find_row(name, ENGINES, "search.engine", EngineSpec)


def check_engine(engine: str, workers: Workers, device: str | None = None) -> None:
    """Refuse an engine that cannot run here, before the search does any work.

    Args:
        engine: a row of ENGINES, or "package.module:function".
        workers: number of trials at once, and the resources of each.
        device: of the trials, by torch's name, or None if it is not known yet.

    Raises:
        ConfigError: the engine is unknown (the nearest is suggested), or cannot run on this machine.
    """
    spec = find_engine(engine)
    if spec.check is not None:
        with guarding(engine, "search.engine"):
            spec.check(workers, device)


def run_search(
    engine: str,
    runner: TrialRunner,
    make_scorer: MakeScorer,
    *,
    workers: int | Workers = 1,
    other_hosts_are_gone: bool = False,
) -> None:
    """Run or resume a search until its study has all its trials.

    Trials that a dead process left running are queued again first. If Ctrl-C or an error ends the search
    early, no trial stays marked as running, and no finished trial is lost.

    Other searches, here or on other machines, may work on the same study at the same time. If they create the
    last trials at the same moment, the study ends with at most one more trial for each of them.

    Args:
        engine: a row of ENGINES, or "package.module:function".
        runner: the trials' lifecycle.
        make_scorer: makes the scorer in the process that uses it. Engines with several processes pickle it.
        workers: number of trials at once, for engines that run several, or a `Workers` with their resources.
        other_hosts_are_gone: whether trials that other hosts hold are queued again too.

    Raises:
        ConfigError: the engine is unknown, or cannot run here.
        StudyError: the storage cannot be used, or every trial fails.
    """
    given = workers if isinstance(workers, Workers) else Workers(workers)
    check_engine(engine, given, runner.device)
    runner.study.requeue_dead(other_hosts=other_hosts_are_gone)
    try:
        run_engine(engine, runner, make_scorer, given)
    finally:
        runner.study.release()


def run_engine(engine: str, runner: Runner, make_scorer: MakeScorer, workers: Workers) -> None:
    """Let an engine run all jobs of a runner. Nothing is started if there is no job.

    Raises:
        ConfigError: the engine is unknown, or a user's own one failed.
        StudyError: the storage cannot be used.
    """
    if runner.left():
        with guarding(engine, "search.engine"):
            find_engine(engine).run(runner, make_scorer, workers)
