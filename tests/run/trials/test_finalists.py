"""Finalists: a probe of the user's own times the best trials, and its times decide which is the best."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.config.rungs import RungScore
from autoprune.data import load
from autoprune.engines import TrialRunner
from autoprune.execution import Setting
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting, Measurement, Ratio, device_fingerprint, time_interleaved
from autoprune.latency.table import LatencyTable
from autoprune.latency.table._latency_table import Calibration
from autoprune.reporting import summarise, summary_notes
from autoprune.run import Dense, Event, Stage
from autoprune.run._resolving.latency import stored_table
from autoprune.run._resolving.problem import build_problem, trace_dense
from autoprune.run._resolving.ranking import encode_ranking, rank_channels
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.finalists import FINALISTS, MOST, judge, measure_finalists
from autoprune.run._trials.race_plan import entrants_of
from autoprune.study import SearchStudy, ToleranceFacts, create_study, open_study
from autoprune.study._pareto import front_of
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.training import Task
from autoprune.zoo import make_model
from tests.engines.toy import FACTS

TIMED: list[int] = []

REFUSED: set[int] = set()
"""Parameters of the models that the probe cannot time."""


def by_parameters(model: nn.Module, inputs: Any) -> float:
    """Take a microsecond a parameter: as exact as a clock is not."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if parameters in REFUSED:
        raise ValueError("the phone is unplugged")
    TIMED.append(parameters)
    return parameters / 1000


class Predictor:
    """Predicts candidates with a relative error, and those of odd widths to take so many times as long."""

    def __init__(self, prunable: Prunable, error: float, odd: float = 1.0) -> None:
        self.prunable, self.error, self.odd = prunable, error, odd
        self.dense_ms = int(prunable.cost().params) / 1000

    def __call__(self, widths: IntArray) -> FloatArray:
        exact: FloatArray = np.asarray(self.prunable.cost(widths).params, dtype=np.float64) / 1000
        return self.error * exact

    def expected(self, widths: IntArray) -> FloatArray:
        """Return more than the budget is filled by if the first group's width is odd: a stair."""
        return self(widths) * np.where(widths[:, 0] % 2 == 1, self.odd, 1.0)


@pytest.fixture(autouse=True)
def _slices_of_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the probe run once a slice, since it always returns the same milliseconds."""
    at_once = functools.partial(time_interleaved, slice_seconds=1e-9)
    monkeypatch.setattr("autoprune.latency._side_by_side.time_interleaved", at_once)


@functools.cache
def dense_model() -> tuple[Dense, Prunable]:
    """Return the dense model, which tests only read, and its trace."""
    torch.manual_seed(0)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits"), Task(), "cpu")
    return dense, trace_dense(dense, RunSpec.of({}))


class Case:
    """A study of random trials whose latency was predicted with an error.

    The first trial scores best or, if latency is an objective, the slowest. The study is in a journal, which
    costs a fifth of the time of SQLite. Equal cases begin with copies of one journal.
    """

    _made: ClassVar[dict[str, tuple[Run, bytes]]] = {}

    def __init__(self, folder: Path, latency: str | None, **options: Any) -> None:
        self.url = f"journal:///{folder}/a.log"
        key = f"{latency} {sorted(options.items())}"
        if key in self._made:
            self.run, journal = self._made[key]
            folder.mkdir(exist_ok=True)
            (folder / "a.log").write_bytes(journal)
        else:
            self._make(latency, **options)
            self._made[key] = self.run, (folder / "a.log").read_bytes()

    def _make(
        self,
        latency: str | None,
        error: float,
        objectives: tuple[str, ...] = ("score",),
        odd: float = 1.0,
        table: Mapping[str, Any] | None = None,
        trials: int = 20,
        uniform: bool = False,
        tolerance: float | None = None,
    ) -> None:
        moves = {} if tolerance is None else {"tolerance": tolerance, "of": "latency"}
        spec = RunSpec.of(
            {
                "budget": moves if latency is None else {"latency": latency},
                "search": {"objectives": list(objectives)},
                "latency": {"probe": f"{__name__}:by_parameters", "limit_seconds": 0.01},
            }
        )
        dense, prunable = dense_model()
        problem = build_problem(prunable, spec, Predictor(prunable, error, odd))
        self.run = Run(**vars(problem), spec=spec, dense=dense, setting=Setting("cpu"))
        ranking = encode_ranking(rank_channels(self.run, "l1"))
        study = create_study(
            self.url,
            "a",
            config=dataclasses.asdict(spec),
            identity={},
            facts=FACTS.model_copy(
                update={
                    "ranking": ranking,
                    "latency": table,
                    "tolerance": None
                    if tolerance is None
                    else ToleranceFacts(cost="latency_ms", allowed=tolerance, plans={}),
                }
            ),
            objectives=("score", *spec.objectives),
        )
        runner = TrialRunner(
            study,
            self.run.space,
            sampler="random",
            pruner="none",
            trials=trials,
            cost=self.run.cost,
        )
        if uniform:  # the first trial, which scores worst
            study.enqueue(
                dict.fromkeys((variable.name for variable in self.run.space.variables), 0.5), "uniform"
            )
        while (job := runner.ask()) is not None:
            score = -job.number if len(objectives) == 1 else sum(job.widths.values())
            score -= trials if uniform and job.number == 0 else 0
            runner.report(job, RungScore(0, "calibrate", score, 0.0))
            runner.finish(job)

    def measure(self) -> tuple[SearchStudy, list[str]]:
        said: list[str] = []

        def watch(event: Event) -> None:
            if isinstance(event, Stage):
                said.append(event.text)

        study = open_study(self.url, "a")
        measure_finalists(dataclasses.replace(self.run, table=stored_table(study), watch=watch), study)
        return study, said


def test_the_first_that_is_within_the_limit_wins_and_five_are_timed(tmp_path: Path) -> None:
    study, said = Case(tmp_path, "60%", error=1.0).measure()
    measured = [record for record in study.records() if record.measured is not None]
    assert [record.number for record in measured] == list(range(FINALISTS))
    assert all(record.measured.met for record in measured)  # type: ignore[union-attr]
    assert study.best().number == 0
    assert len(said) == FINALISTS


def test_the_heuristics_that_enter_the_race_are_timed_too(tmp_path: Path) -> None:
    study, _ = Case(tmp_path, "60%", error=1.0, uniform=True).measure()
    measured = [record.number for record in study.records() if record.measured is not None]
    assert measured == list(range(FINALISTS + 1))
    assert [record.number for record in entrants_of(study, 3)] == [0, 1, 2, 3]
    slow, _ = Case(tmp_path / "slow", "60%", error=0.5, uniform=True).measure()
    assert slow.record(0).was_over_limit
    assert entrants_of(slow, 3) == [slow.best()], "if all are over the budget, the fastest is alone"


def test_a_prediction_that_is_too_low_is_found_out(tmp_path: Path) -> None:
    """Predictions 1% low, in a window of 2%: some of the best are over the limit, and the best is not one."""
    case = Case(tmp_path, "60%", error=0.99)
    study, said = case.measure()
    limit = 0.6 * int(case.run.dense_cost.params)
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


def test_the_fastest_within_a_tolerance_are_timed_and_the_fastest_of_them_wins(tmp_path: Path) -> None:
    """The score of trial n is -n, and that of the dense model 0.9: trials 0 to 11 are within."""
    study, _ = Case(tmp_path, None, error=1.0, tolerance=12.5).measure()
    within = sorted(study.records()[:12], key=lambda record: record.costs["latency_ms"])
    measured = {record.number for record in study.records() if record.measured is not None}
    assert measured == {record.number for record in within[:FINALISTS]}
    assert study.best().number == within[0].number


def test_those_that_are_expected_to_be_over_the_limit_are_timed_last(tmp_path: Path) -> None:
    """The space fills 60% by what never falls; records, and who is timed, go by what is expected."""
    case = Case(tmp_path, "60%", error=1.0, odd=1.3)
    study, _ = case.measure()
    records = study.records()
    limit = case.run.budget.limits["latency_ms"]
    fits = [record.number for record in records if record.costs["latency_ms"] <= limit]
    assert FINALISTS < len(fits) < len(records)
    measured = [record.number for record in records if record.measured is not None]
    assert measured == fits[:FINALISTS]


@pytest.mark.slow
def test_if_none_is_within_the_limit_it_is_reported_and_the_fastest_wins(tmp_path: Path) -> None:
    study, said = Case(tmp_path, "60%", error=0.8).measure()
    measured = [record for record in study.records() if record.measured is not None]
    assert len(measured) == MOST
    assert f"none of the {MOST} best trials is within budget.latency = 60%" in said[-1]
    assert study.best().params == min(int(record.params or 0) for record in measured)


def test_milliseconds_are_judged_as_milliseconds(tmp_path: Path) -> None:
    case = Case(tmp_path, "30 ms", error=1.0)
    study, _ = case.measure()
    best = study.best()
    assert best.measured is not None
    assert best.measured.met
    assert best.measured.latency_ms == pytest.approx(int(best.params or 0) / 1000)
    assert best.measured.latency_ms <= 30


@pytest.mark.parametrize(
    ("ratio", "interval", "verdict"),
    [
        (0.58, (0.57, 0.59), (True, True)),
        (0.59, (0.57, 0.61), (True, False)),
        (0.61, (0.59, 0.63), (False, False)),
        (0.62, (0.61, 0.63), (False, True)),
    ],
)
def test_a_verdict_shows_whether_its_interval_lies_on_its_side(
    ratio: float, interval: tuple[float, float], verdict: tuple[bool, bool], tmp_path: Path
) -> None:
    problem = Case(tmp_path, "60%", error=1.0, trials=0).run
    ms = Measurement(50.0, (49.0, 51.0), 50.0, 20, 1.0, tight=True)
    assert judge(problem, ms, Ratio(ratio, interval, tight=True)) == verdict


def test_a_resumed_search_times_nothing_twice(tmp_path: Path) -> None:
    case = Case(tmp_path, "60%", error=1.0)
    case.measure()
    TIMED.clear()
    case.measure()
    assert not TIMED


def test_a_trial_that_cannot_be_timed_is_reported_and_the_others_are_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = Case(tmp_path, "60%", error=1.0)
    records = open_study(case.url, "a").records()
    monkeypatch.setattr(f"{__name__}.REFUSED", {records[0].params})
    study, said = case.measure()
    assert study.records()[0].measured is None
    assert said[0].startswith("trial 0 cannot be timed: ")
    assert "unplugged" in said[0]
    assert sum(record.measured is not None for record in study.records()) == FINALISTS - 1
    assert said[-1] == f"1 of the best trials could not be timed: {later(case)}"
    assert study.best().number == 1


def test_if_none_can_be_timed_a_resume_does_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(tmp_path, "60%", error=1.0)
    records = open_study(case.url, "a").records()
    with monkeypatch.context() as unplugged:
        unplugged.setattr(f"{__name__}.REFUSED", {record.params for record in records})
        study, said = case.measure()
    assert all(record.measured is None for record in study.records())
    assert said[-1] == f"none of the best trials could be timed: {later(case)}"
    assert study.best().number == 0
    study, _ = case.measure()
    assert study.records()[0].measured is not None


def later(case: Case) -> str:
    return f"`autoprune resume a --storage {case.url}` times them later"


@pytest.mark.parametrize(
    ("latency", "message"),
    [
        ({"device": "cuda:77"}, r"not timed here: latency\.device: got .cuda:77., but torch sees"),
        ({"batch": 2}, r"not timed here: latency table: measured for another model"),
        ({"probe": "nowhere:probe"}, r"not timed here: latency\.probe: .*nowhere"),
    ],
)
def test_nothing_is_timed_on_another_machine_and_it_is_reported(
    latency: dict[str, Any], message: str, tmp_path: Path
) -> None:
    calibration = Calibration(constant_ms=0.0, error=0.01, candidates=64, seconds=1.0)
    device = device_fingerprint(LatencySetting())
    table = LatencyTable(LatencySetting(), device, "another", 3, (), {}, calibration, dense_ms=4.0)
    case = Case(tmp_path, "60%", error=1.0, table=table.to_json(), trials=2)
    spec = case.run.spec
    spec = dataclasses.replace(spec, latency=dataclasses.replace(spec.latency, **latency))
    case.run = dataclasses.replace(case.run, spec=spec)
    study, said = case.measure()
    assert all(record.measured is None for record in study.records())
    assert len(said) == 1
    assert re.search(message, said[0])


def test_the_front_of_a_search_for_low_latency_is_timed(tmp_path: Path) -> None:
    """No limit to keep to: the front is timed, and none of it is refused."""
    study, said = Case(tmp_path, None, error=1.0, objectives=("score", "latency")).measure()
    front = front_of(study.records(), study.objectives)
    assert len(front) > FINALISTS
    measured = [record.number for record in study.records() if record.measured is not None]
    assert len(measured) == len(said) == min(MOST, len(front))
    assert set(measured) <= {record.number for record in front}
    for end in (front[0], front[-1]):
        assert end.measured is not None
        assert end.measured.met is None
    assert all(text.endswith("of the dense model's time") for text in said)
    assert study.best().number == front[-1].number
    note = next(
        note
        for note in summary_notes(summarise(study))
        if "measured side by side with the dense model" in note
    )
    assert note.endswith("of the dense model's time.")


def test_trials_that_come_onto_the_front_as_others_are_timed_are_timed_too(tmp_path: Path) -> None:
    """Those of odd widths are predicted too fast: as they are timed they fall behind others."""
    case = Case(tmp_path, None, error=1.0, objectives=("score", "latency"), odd=0.5)
    records = open_study(case.url, "a").records()
    before = {record.number for record in front_of(records, ("score", "latency_ms"))}
    study, _ = case.measure()
    front = front_of(study.records(), study.objectives, study.dense_ms)
    assert {record.number for record in front} != before
    timed = {record.number for record in study.records() if record.measured is not None}
    assert timed - before
    assert len(timed) == MOST or {record.number for record in front} <= timed


@pytest.mark.slow
def test_a_front_of_other_costs_is_timed_if_latency_is_limited(tmp_path: Path) -> None:
    """Predictions are 30% low: what was measured to be over the limit leaves the front."""
    study, _ = Case(tmp_path, "60%", error=0.7, objectives=("score", "macs")).measure()
    over = {record.number for record in study.records() if record.measured and not record.measured.met}
    assert over
    front = front_of(study.records(), study.objectives, study.dense_ms)
    assert not over & {record.number for record in front}
    assert summarise(study).front == tuple(front)


def test_a_front_under_a_limit_is_judged_by_it(tmp_path: Path) -> None:
    study, _ = Case(tmp_path, "60%", error=0.7, objectives=("score", "latency")).measure()
    measured = [record.measured for record in study.records() if record.measured is not None]
    assert {each.met for each in measured} == {True, False}
    best = study.best()
    assert best.measured is not None
    assert best.measured.met
    within = [record for record in study.records() if record.measured is not None and record.measured.met]
    assert best.score == max(record.score or 0.0 for record in within)
