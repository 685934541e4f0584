"""Finalists: the best are timed by a probe of the user's, and what it says decides which is the best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.config import load_config
from autoprune.data import load
from autoprune.engines import TrialRunner
from autoprune.graph import Prunable
from autoprune.pipeline.dense import Dense
from autoprune.pipeline.events import Event, Stage
from autoprune.pipeline.finalists import FINALISTS, MOST, measure_finalists
from autoprune.pipeline.problem import Problem, pose
from autoprune.pipeline.ranking import encode_ranking, rank_channels
from autoprune.settings import RunConfig
from autoprune.space.levels import FloatArray, IntArray
from autoprune.study import RungScore, SearchStudy, create_study, open_study
from autoprune.task import Task
from autoprune.zoo import make_model

TIMED: list[int] = []


def by_parameters(model: nn.Module, inputs: Any) -> float:
    """Take a microsecond a parameter: as exact as a clock is not."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    TIMED.append(parameters)
    return parameters / 1000


class Predictor:
    """Predicts candidates with a relative error."""

    def __init__(self, prunable: Prunable, error: float) -> None:
        self.prunable, self.error = prunable, error
        self.dense_ms = int(prunable.cost().params) / 1000

    def __call__(self, widths: IntArray) -> FloatArray:
        exact: FloatArray = np.asarray(self.prunable.cost(widths).params, dtype=np.float64) / 1000
        return self.error * exact


class Case:
    """A study of 20 random trials whose latency was predicted with an error; the first scores best."""

    def __init__(self, folder: Path, latency: str, error: float) -> None:
        torch.manual_seed(0)
        self.config: RunConfig = load_config(
            {
                "budget": {"latency": latency},
                "latency": {"probe": f"{__name__}:by_parameters", "limit_seconds": 0.01},
            }
        )
        model = make_model("digits_resnet", 10, 1).eval()
        self.dense = Dense(model, load("digits"), Task(), "cpu")
        self.problem: Problem = pose(self.dense, self.config, lambda prunable: Predictor(prunable, error))
        ranking = encode_ranking(rank_channels(self.dense, self.problem, "l1", 0))
        self.url = f"sqlite:///{folder}/a.db"
        study = create_study(self.url, "a", config={}, identity={}, chosen={"ranking": ranking})
        runner = TrialRunner(study, self.problem.space, sampler="random", pruner="none", trials=20)
        while (job := runner.ask()) is not None:
            runner.report(job, RungScore(0, "calibrate", -job.number, 0.0))
            runner.finish(job)

    def measure(self) -> tuple[SearchStudy, list[str]]:
        said: list[str] = []

        def watch(event: Event) -> None:
            if isinstance(event, Stage):
                said.append(event.text)

        study = open_study(self.url, "a")
        measure_finalists(study, self.config, self.dense, self.problem, watch)
        return study, said


def test_the_first_that_is_within_the_limit_wins_and_five_are_timed(tmp_path: Path) -> None:
    study, said = Case(tmp_path, "60%", error=1.0).measure()
    measured = [record for record in study.records() if record.measured is not None]
    assert [record.number for record in measured] == list(range(FINALISTS))
    assert all(record.measured.met for record in measured)  # type: ignore[union-attr]
    assert study.best().number == 0
    assert len(said) == FINALISTS


def test_a_prediction_that_is_too_low_is_found_out(tmp_path: Path) -> None:
    """Predictions 1% low, in a window of 2%: some of the best are over the limit, and the best is not one."""
    case = Case(tmp_path, "60%", error=0.99)
    study, said = case.measure()
    limit = 0.6 * int(case.problem.dense_cost.params)
    records = study.records()
    for record in records:
        if record.measured is not None:
            assert record.measured.met == (int(record.params or 0) <= limit)
    verdicts = [record.measured.met for record in records if record.measured is not None]
    assert False in verdicts
    assert study.best().number == next(
        record.number for record in records if int(record.params or 0) <= limit
    )
    assert sum(": over 60%" in text for text in said) == verdicts.count(False)


def test_where_none_is_within_the_limit_it_is_said_and_the_fastest_taken(tmp_path: Path) -> None:
    study, said = Case(tmp_path, "60%", error=0.8).measure()
    measured = [record for record in study.records() if record.measured is not None]
    assert len(measured) == MOST
    assert f"none of the {MOST} best trials keeps to budget.latency = 60%" in said[-1]
    assert study.best().params == min(int(record.params or 0) for record in measured)


def test_milliseconds_are_judged_as_milliseconds(tmp_path: Path) -> None:
    case = Case(tmp_path, "30 ms", error=1.0)
    study, _ = case.measure()
    best = study.best()
    assert best.measured is not None
    assert best.measured.met
    assert best.measured.latency_ms == pytest.approx(int(best.params or 0) / 1000)
    assert best.measured.latency_ms <= 30


def test_a_resumed_search_times_nothing_twice(tmp_path: Path) -> None:
    case = Case(tmp_path, "60%", error=1.0)
    case.measure()
    TIMED.clear()
    case.measure()
    assert not TIMED
