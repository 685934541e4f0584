"""The jobs of a race on engines: every job ends with one score, wherever it runs and whatever dies."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from autoprune.config.rungs import RungScore
from autoprune.engines import Job, RaceRunner, Workers, run_engine
from autoprune.errors import TrialError
from autoprune.space import Candidate
from autoprune.study import SearchStudy
from tests.engines.toy import make_toy, new_study


class Stages:
    """A stage of three jobs and one of two, whose scores and deaths are kept."""

    def __init__(self, folder: Path) -> None:
        self.study: SearchStudy = new_study(f"journal:///{folder}/study.log")
        self.scores: dict[int, RungScore] = {}
        self.deaths: dict[int, str] = {}
        self.jobs = [
            Job(number, Candidate({"c0": 4 + number, "c1": 8, "c2": 16}.items()), number, "")
            for number in (2, 5, 7, 3, 4)
        ]
        stages = iter([self.jobs[:3], self.jobs[3:]])
        self.runner = RaceRunner(
            self.study,
            lambda: next(stages, []),
            device="cpu",
            on_score=self.scores.__setitem__,
            on_death=self.deaths.__setitem__,
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stages:
    return Stages(tmp_path)


@pytest.mark.parametrize("engine", ["serial", pytest.param("processes", marks=pytest.mark.slow)])
def test_every_job_gets_one_score(stage: Stages, engine: str) -> None:
    run_engine(engine, stage.runner, make_toy, Workers(2))
    scorer = make_toy()
    assert stage.runner.left() == 0
    assert {number: score.score for number, score in stage.scores.items()} == {
        job.number: next(scorer(job.widths, job.variant)).score for job in stage.jobs
    }


def test_a_job_whose_worker_dies_comes_again_and_is_given_up_the_second_time(stage: Stages) -> None:
    first = stage.runner.ask()
    assert first is not None
    stage.runner.bury(first, "killed by signal 9")
    assert stage.runner.left() == 3
    numbers = [job.number for _ in range(3) if (job := stage.runner.ask()) is not None]
    assert numbers == [5, 7, 2]
    stage.runner.bury(first, "killed by signal 9")
    assert stage.deaths == {2: "its worker process died 2 times (killed by signal 9)."}
    assert stage.runner.left() == 2
    assert stage.runner.ask() is None, "the stage has not ended"
    for job in stage.jobs[1:3]:
        stage.runner.finish(job)
    assert stage.runner.left() == 2, "those of the next stage"
    assert stage.runner.ask() == stage.jobs[3]


def deadly(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
    """Kill this process at the last job of the first stage."""
    if seed == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return make_toy()(widths, seed)


def make_deadly() -> Any:
    return deadly


@pytest.mark.slow
def test_a_stage_whose_last_job_kills_the_only_worker_is_followed_by_the_next(stage: Stages) -> None:
    run_engine("processes", stage.runner, make_deadly, Workers(1))
    assert stage.deaths.keys() == {7}
    assert stage.scores.keys() == {2, 5, 3, 4}


def broken(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
    raise RuntimeError("no data")
    yield  # a scorer is a generator


def test_an_error_ends_the_race(stage: Stages) -> None:
    with pytest.raises(TrialError, match=r"toy: race: trial 2: RuntimeError: no data"):
        run_engine("serial", stage.runner, lambda: broken, Workers())
