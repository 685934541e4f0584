"""Picks by latency: as it was measured if a trial was timed, else as it was predicted."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from autoprune import run
from autoprune.config import load_config
from autoprune.config.rungs import RungScore
from autoprune.engines import TrialRunner
from autoprune.errors import ConfigError, StudyError
from autoprune.graph import Cost
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import build_problem, trace_dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.space import ShareSpace
from autoprune.study import MeasuredLatency, create_study, open_study
from autoprune.support.arrays import FloatArray, IntArray
from tests.engines.toy import FACTS, IDENTITY, toy_space

DENSE_MS = 10.0


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A finished study under a budget of MACs, which every trial fills.

    Trial n takes n + 1 of 10 ms by prediction; the slower ones score better.
    """
    url = f"journal:///{tmp_path}/study.log"
    config = {"task": {"metric": "accuracy"}, "score": {"rungs": ["calibrate"]}}
    space = toy_space()
    costs = {"latency_ms": DENSE_MS, "macs": 10**7, "params": 10**5}
    facts = FACTS.model_copy(update={"dense_costs": costs, "limits": {"macs": space.budget.limits["macs"]}})
    study = create_study(url, "toy", config=config, identity=IDENTITY, facts=facts)
    taken = iter(range(1, 7))

    def cost(widths: IntArray) -> Cost:
        return space.cost(widths).plus(latency_ms=np.array([float(next(taken))]))

    runner = TrialRunner(study, space, sampler="random", pruner="none", trials=6, rungs=1, cost=cost)
    while (job := runner.ask()) is not None:
        runner.report(job, RungScore(0, "calibrate", 0.1 * (job.number + 1), 0.0))
        runner.finish(job)
    return url


def measured(milliseconds: float, ratio: float) -> MeasuredLatency:
    return MeasuredLatency(milliseconds, (milliseconds, milliseconds), ratio, (ratio, ratio), met=True)


def test_predictions_count_if_nothing_was_timed(url: str) -> None:
    for limit, number in (("3ms", 2), ("3.9 ms", 2), ("40%", 3), ("0.1 s", 5), ("2000 us", 1)):
        picked = run.best("toy", url, {"latency": limit})
        assert picked.trial.number == number, limit
    least = r"The smallest: 1 ms \(10\.0%, trial 0\)\.$"
    with pytest.raises(StudyError, match=rf"toy: no complete trial is within --latency 0\.5ms\. {least}"):
        run.best("toy", url, {"latency": "0.5ms"})


def test_what_was_timed_overrules_its_prediction(url: str) -> None:
    """A slow machine: 4 ms for predicted 3; its dense model is slower, too, so the share is as predicted."""
    study = open_study(url, "toy")
    study.store_measured(2, measured(4.0, 0.3))
    study.store_measured(4, measured(2.9, 0.6))
    assert run.best("toy", url, {"latency": "3ms"}).trial.number == 4
    assert run.best("toy", url, {"latency": "30%"}).trial.number == 2
    assert run.best("toy", url, {"latency": "30%", "params": "100%"}).trial.number == 2


def test_what_was_over_the_searchs_own_limit_is_taken_only_under_another_latency(url: str) -> None:
    study = open_study(url, "toy")
    study.store_measured(5, dataclasses.replace(measured(7.0, 0.7), met=False))
    assert run.best("toy", url, {"params": "100%"}).trial.number == 4
    assert run.best("toy", url, {"latency": "7 ms"}).trial.number == 5


def test_a_study_without_a_complete_trial_has_no_best(tmp_path: Path) -> None:
    url = f"journal:///{tmp_path}/study.log"
    config = {"task": {"metric": "accuracy"}, "score": {"rungs": ["calibrate"]}}
    create_study(url, "toy", config=config, identity=IDENTITY, facts=FACTS)
    with pytest.raises(StudyError, match="toy: no trial has completed yet"):
        run.best("toy", url, {"macs": "1G"})
    with pytest.raises(ConfigError, match=r'limits: unknown cost "speed"'):
        run.best("toy", url, {"speed": "1G"})


class ByWidth:
    """Takes an eighth of a millisecond for each channel of the first three groups."""

    dense_ms = 6.0

    def __call__(self, widths: IntArray) -> FloatArray:
        return np.asarray(widths[:, :3].sum(axis=1), dtype=np.float64) / 8

    expected = __call__


def test_latency_is_one_more_cost_of_a_front() -> None:
    """The predictor comes with the problem. The share is then one of the dense model's time."""
    config = load_config(
        {
            "model": {"name": "digits_resnet"},
            "data": {"name": "digits"},
            "search": {"objectives": ["score", "latency", "params"]},
            "budget": {"latency": "60%"},
        }
    )
    spec = RunSpec.of(config)
    problem = build_problem(trace_dense(load_dense(spec, trained=False), spec), spec, ByWidth())
    space = problem.space
    assert isinstance(space, ShareSpace)
    assert problem.dense_cost.latency_ms == 6.0
    assert problem.budget.limits.keys() == {"latency_ms", "params"}
    assert problem.budget.limits["latency_ms"] == pytest.approx(3.6)
    ladder = space.ladder
    asked = np.random.default_rng(0).uniform(ladder.low, ladder.high, (50, len(ladder.low)))
    widths = space.decode(asked)
    filled = space.usage(widths) / space.shares[ladder.of_ratios(asked)[:, 0]]
    assert (filled <= 1 + 1e-9).all()
    assert (np.asarray(problem.cost(widths).latency_ms) <= 3.6).all()
    np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)


def test_the_least_that_there_is_is_one_that_could_be_taken(url: str) -> None:
    study = open_study(url, "toy")
    first, second = sorted(study.records(), key=lambda record: record.macs or 0)[:2]
    study.store_measured(first.number, dataclasses.replace(measured(7.0, 0.7), met=False))
    with pytest.raises(StudyError, match=rf"The smallest: .*trial {second.number}\)"):
        run.best("toy", url, {"macs": "1"})


def test_a_search_that_fills_its_budget_reports_that_nothing_lies_below_it(url: str) -> None:
    objectives = r'search\.objectives = \["score", "flops"\]'
    hint = rf"Every trial fills its budget\. A search with {objectives} gives a front to pick from\.$"
    for limits in ({"flops": "1"}, {"flops": "1", "params": "1"}):
        with pytest.raises(StudyError, match=hint):
            run.best("toy", url, limits)
    for limits in ({"params": "1"}, {"latency": "0.5 ms"}, {"flops": "100%", "params": "1"}):
        with pytest.raises(StudyError, match=r"The smallest: .*\)\.$"):
            run.best("toy", url, limits)
