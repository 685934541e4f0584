"""Searches without training: the space of ResNet-20, and a scorer that sleeps as long as real trials took.

Example:
    create("sqlite:///s.db")
    search = Search("sqlite:///s.db", folder, trials=60)
    pid = work(search, host="node-1")       # a process on a host of its own
    outcome(search).lost
"""

from __future__ import annotations

import csv
import ctypes
import functools
import socket
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import torch

import autoprune
from autoprune.config.rungs import RungScore
from autoprune.engines import TrialEvent, TrialRunner, Workers, run_search
from autoprune.execution import Setting
from autoprune.space import Budget, SearchSpace, build_space
from autoprune.study import SearchStudy, StudyFacts, create_study, open_study
from autoprune.zoo import make_model
from experiments.killing import forked

STUDY = "scale"
RECORDED = Path(__file__).parents[1] / "repair" / "searches.csv"
LADDER = "repair"
RUNGS, SEED = 3, 0
_NEW_HOST = 0x04000000
"""CLONE_NEWUTS of Linux: a host name of the calling process's own."""


@functools.cache
def space() -> SearchSpace:
    """Return the space of ResNet-20 at a quarter of its MACs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        prunable = autoprune.trace(make_model("resnet20", 10, 1), torch.zeros(2, 1, 28, 28))
    dense = prunable.cost()
    return build_space(prunable.groups, prunable.cost, Budget(macs=int(dense.macs) // 4))


@functools.cache
def recorded_seconds() -> tuple[float, ...]:
    """Return the seconds of each trial of three searches. Their rows have the seconds since the start."""
    ends: dict[str, list[float]] = {}
    with RECORDED.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["ladder"] == LADDER:
                ends.setdefault(row["seed"], [0.0]).append(float(row["seconds"]))
    # The first trial of a search is left out, because its seconds include all measurements before it.
    return tuple(float(seconds) for each in ends.values() for seconds in np.diff(each)[1:])


@dataclass(frozen=True)
class Sleeper:
    """A scorer that sleeps for the time of a recorded trial, and notes each trial that it has scored.

    Attributes:
        folder: of a file `scored`, with the seed of each trial that was scored to its end.
        pace: recorded seconds that pass in a second.
    """

    folder: Path
    pace: float

    def __call__(self, widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
        """Yield a score for each rung."""
        seconds = float(np.random.default_rng(seed).choice(recorded_seconds())) / self.pace
        for rung in range(RUNGS):
            time.sleep(seconds / RUNGS)
            score = sum(np.sin(width / 7 + i + 0.1 * rung) for i, width in enumerate(widths.values()))
            if rung == RUNGS - 1:
                with (self.folder / "scored").open("a") as file:
                    file.write(f"{seed}\n")
            yield RungScore(rung, f"rung{rung}", float(score), seconds / RUNGS)


@dataclass(frozen=True)
class Search:
    """A search, which several processes may run. All its trials climb to the last rung."""

    url: str
    folder: Path
    trials: int
    pace: float = 30.0
    sampler: str = "random"

    def runner(self, on_event: Callable[[TrialEvent], None] | None = None) -> TrialRunner:
        """Return a runner of its trials, which opens the study."""
        return TrialRunner(
            open_study(self.url, STUDY),
            space(),
            sampler=self.sampler,
            pruner="none",
            trials=self.trials,
            rungs=RUNGS,
            seed=SEED,
            on_event=on_event,
        )

    def run(
        self,
        engine: str = "serial",
        workers: int | Workers = 1,
        *,
        take_over: bool = False,
        on_event: Callable[[TrialEvent], None] | None = None,
    ) -> None:
        """Run the trials that are left."""
        make = functools.partial(Sleeper, self.folder, self.pace)
        run_search(engine, self.runner(on_event), make, workers=workers, other_hosts_are_gone=take_over)


def create(url: str) -> SearchStudy:
    """Create the study of a search."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    facts = StudyFacts(setting=Setting().facts, ranking={}, dense_score=0.9)
    identity = {"model": "m" * 64, "data": "d" * 64, "space": "s" * 64}
    return create_study(url, STUDY, config={"seed": SEED}, identity=identity, facts=facts)


def work(search: Search, host: str | None = None, *, take_over: bool = False) -> int:
    """Run a search in a forked child of this process. Return its pid.

    Args:
        search: whose study exists.
        host: the name of the host that the child believes to be on, which needs root.
        take_over: whether other hosts are gone.
    """
    space()  # before the fork, so that it is traced once

    def run() -> None:
        if host is not None:
            move_to(host)
        search.run(take_over=take_over)

    return forked(run, search.folder)


def move_to(host: str) -> None:
    """Give this process a host name of its own. It needs root."""
    if ctypes.CDLL(None, use_errno=True).unshare(_NEW_HOST) != 0:
        raise OSError(ctypes.get_errno(), "unshare")
    socket.sethostname(host)


@dataclass(frozen=True)
class Outcome:
    """What became of the trials of a search.

    Attributes:
        ended: trials that completed.
        lost: trials that did not, or that are missing.
        extra: trials above the requested number.
        scored_twice: trials that were scored to their end more than once.
    """

    ended: int
    lost: int
    extra: int
    scored_twice: int


def outcome(search: Search) -> Outcome:
    """Return the states of the trials of a search that should have ended."""
    records = open_study(search.url, STUDY).records()
    ended = sum(record.state == "complete" for record in records)
    for record in records:
        if record.state != "complete":
            print(f"trial {record.number}: {record.state}, {record.failure}")
    scored = Counter((search.folder / "scored").read_text().split())
    return Outcome(
        ended=ended,
        lost=max(search.trials, len(records)) - ended,
        extra=max(0, len(records) - search.trials),
        scored_twice=sum(count > 1 for count in scored.values()),
    )


def ended(search: Search) -> int:
    """Return how many trials have ended."""
    return open_study(search.url, STUDY).ended()
