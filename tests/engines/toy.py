"""Fast scorers with deterministic scores, and a program that tests start and kill.

process = start("sqlite:///s.db", "tpe", "median")        # begins or resumes a search of TRIALS trials
"""

from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna

from autoprune.config.rungs import RungScore
from autoprune.engines import TrialEvent, TrialRunner, run_search
from autoprune.errors import TrialError
from autoprune.execution import Setting
from autoprune.samplers import MovingBudget
from autoprune.space import Budget, SearchSpace, ShareSpace, build_space
from autoprune.study import SearchStudy, StudyFacts, ToleranceFacts, create_study, open_study
from autoprune.study._storage import open_storage
from tests.space.costs import chain, dense_macs

ROOT = Path(__file__).parents[2]
TRIALS = 24
IDENTITY = {"model": "m" * 64, "data": "d" * 64, "space": "s" * 64}
FACTS = StudyFacts(setting=Setting().facts, ranking={}, dense_score=0.9)


@dataclass(frozen=True)
class ToyScorer:
    """A smooth score of the widths, rung by rung. It may sleep a little before each."""

    rungs: int = 2
    sleep_s: float = 0.0

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        for rung in range(self.rungs):
            time.sleep(self.sleep_s)
            score = sum(math.sin(width / 7 + i + 0.1 * rung) for i, width in enumerate(widths.values()))
            yield RungScore(rung, f"rung{rung}", score, self.sleep_s)


@dataclass(frozen=True)
class Troubled:
    """Scores as ToyScorer does, but meets trouble at certain trials, which it counts in a folder's files."""

    folder: Path
    trouble: str

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        call = len(list(self.folder.iterdir()))
        (self.folder / f"{call}-{os.getpid()}-{time.monotonic_ns()}").touch()
        deadly = {"always dies": True, "dies once": call == 3, "dies twice": call < 2}
        if deadly.get(self.trouble, False):
            os.kill(os.getpid(), signal.SIGKILL)
        for rung in ToyScorer()(widths, seed):
            yield rung
            if self.trouble == "diverges" and call == 3:
                raise TrialError("diverged: the loss is nan")
            if self.trouble == "out of memory" and call == 3:
                raise RuntimeError("CUDA out of memory.\nTried to allocate 20 GiB")
            if self.trouble == "loses the GPU" and call == 3:
                raise RuntimeError("CUDA error: device-side assert triggered")
            if self.trouble == "not finite" and call == 3:
                yield RungScore(1, "rung1", math.nan, 0.0)
            if self.trouble == "too few rungs" and call == 3:
                return
            if self.trouble == "always fails":
                raise ValueError("a bug in the metric")


@dataclass(frozen=True)
class Meeting:
    """Scores as ToyScorer does once so many trials have begun: none would end if they ran one after another.

    Rungs are named after what `gpus` sees there, if it is given.
    """

    folder: Path
    guests: int
    gpus: Callable[[], str] | None = None

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        (self.folder / str(seed)).write_text(str(os.getpid()))
        deadline = time.monotonic() + 200
        while len(list(self.folder.iterdir())) < self.guests:
            if time.monotonic() > deadline:
                raise TrialError("the others did not come")
            time.sleep(0.05)
        for rung in ToyScorer()(widths, seed):
            yield rung if self.gpus is None else dataclasses.replace(rung, name=self.gpus())


def make_toy() -> ToyScorer:
    return ToyScorer()


def make_paced() -> ToyScorer:
    """Return one whose trials take long enough to be killed between two of them, on a busy machine too."""
    return ToyScorer(sleep_s=0.06)


def make_slow() -> ToyScorer:
    return ToyScorer(sleep_s=0.3)


@dataclass(frozen=True)
class TroubledStarts:
    """Makes `Troubled` scorers; certain calls of it raise, or kill their process. Counts them in a folder."""

    folder: Path
    trouble: str
    deadly: tuple[int, ...] = ()
    broken: tuple[int, ...] = ()

    def __call__(self) -> Troubled:
        starts = self.folder.parent / "starts"
        starts.mkdir(exist_ok=True)
        number = len(list(starts.iterdir()))
        (starts / str(number)).touch()
        if number in self.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        if number in self.broken:
            raise RuntimeError("the disk hiccups")
        return Troubled(self.folder, self.trouble)


def make_broken() -> ToyScorer:
    raise RuntimeError("no data")


def toy_space(costs: Sequence[str] = ("macs",)) -> SearchSpace:
    """A chain of convolutions at half of its MACs, or at most at all of its parameters, too."""
    net = chain([16, 32, 32, 64])
    params = 40_000 if "params" in costs else None
    return build_space(*net, Budget(macs=dense_macs(net) // 2, params=params))


def new_study(url: str, objectives: Sequence[str] = ("score",)) -> SearchStudy:
    """Create the study of a search with these objectives, or of one with a tolerance: ("tolerance",)."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    facts = FACTS
    if tuple(objectives) == ("tolerance",):
        space, objectives = moving_space(), ("score",)
        widths = [part.decode(np.full(4, 0.5)) for _, part in space.spread(16)]
        plans = {"uniform": space.ladder.of_ratios(space.encode(np.array(widths))).tolist()}
        tolerance = ToleranceFacts(cost="macs", allowed=0.5, plans=plans)
        facts = FACTS.model_copy(update={"tolerance": tolerance})
    return create_study(url, "toy", config={"seed": 5}, identity=IDENTITY, facts=facts, objectives=objectives)


def moving_space() -> ShareSpace:
    return ShareSpace(toy_space(), ["macs"])


def toy_runner(
    study: SearchStudy,
    sampler: str = "tpe",
    trials: int = 12,
    pruner: str = "median",
    on_event: Callable[[TrialEvent], None] | None = None,
) -> TrialRunner:
    """Run trials on the toy space. If the study has several objectives, its budget share is searched too."""
    costs = study.objectives[1:]
    space = ShareSpace(toy_space(costs), costs) if costs else toy_space()
    moving = None
    if study.facts.tolerance is not None and study.least_score is not None:
        space = moving_space()
        plans = {name: np.array(rows) for name, rows in study.facts.tolerance.plans.items()}
        moving = MovingBudget(space, study.least_score, plans, trials)
    statistic = {variable.name: float(i) for i, variable in enumerate(space.variables)}
    return TrialRunner(
        study,
        space,
        sampler=sampler,
        pruner=pruner,
        trials=trials,
        rungs=2,
        seed=5,
        statistics=dict.fromkeys(("importance", "kl"), statistic),
        moving=moving,
        on_event=on_event,
    )


def start(
    url: str,
    sampler: str,
    pruner: str,
    engine: str = "serial",
    *objectives: str,
    events: float = math.inf,
) -> subprocess.Popen[str]:
    """Begin or resume a search in a process of its own, which kills itself after so many events."""
    words = [url, sampler, pruner, engine, str(events), *objectives]
    command = [sys.executable, "-m", "tests.engines.toy", *words]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def main(url: str, sampler: str, pruner: str, engine: str, events: str, *objectives: str) -> None:
    """Do what `start` says."""
    left = float(events)

    def count(event: TrialEvent) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    exists = Path(url.partition(":///")[2]).exists()
    names = [each.study_name for each in open_storage(url, create=True).get_all_studies()] if exists else []
    study = open_study(url, "toy") if "toy" in names else new_study(url, objectives or ("score",))
    runner = toy_runner(study, sampler, TRIALS, pruner, count)
    make = make_paced if engine == "serial" else make_slow
    print("ready", flush=True)
    run_search(engine, runner, make, workers=2)


if __name__ == "__main__":
    main(*sys.argv[1:])
