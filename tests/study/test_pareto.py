"""The Pareto front, with Optuna's as the oracle, and the best of several trials."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from autoprune.config.rungs import RungScore
from autoprune.errors import StudyError
from autoprune.study import MeasuredLatency, TrialRecord, create_study, open_study
from autoprune.study._pareto import best_of, front_of
from tests.engines.toy import FACTS

OBJECTIVES = ("score", "macs")


def trial(number: int, score: float, reused: int | None = None, **costs: float) -> TrialRecord:
    return TrialRecord(
        number=number,
        state="complete",
        value=score,
        scores=(RungScore(0, "calibrate", score, 0.1),),
        ratios={},
        widths={"conv": 4},
        costs=costs,
        seed=0,
        seconds=0.1,
        device="cpu",
        origin="sampler",
        reused=reused,
        failure=None,
    )


@pytest.mark.parametrize("objectives", [("score", "macs"), ("score", "macs", "latency_ms")])
def test_the_pareto_front_equals_optunas(objectives: tuple[str, ...]) -> None:
    """Coarse values, so that many are equal in some objective and a few in all."""
    rng = np.random.default_rng(0)
    directions = [optuna.study.StudyDirection.MAXIMIZE] + [optuna.study.StudyDirection.MINIMIZE] * (
        len(objectives) - 1
    )
    study = optuna.create_study(directions=directions)
    records = []
    for number in range(60):
        score, macs, latency = (int(value) for value in rng.integers(0, 8, 3))
        costs = {"macs": macs, "latency_ms": latency}
        records.append(trial(number, score, **costs))
        study.add_trial(optuna.trial.create_trial(values=[score, *(costs[name] for name in objectives[1:])]))
    front = front_of(records, objectives)
    assert {record.number for record in front} == {each.number for each in study.best_trials}
    assert [record.macs for record in front] == sorted(record.macs or 0 for record in front)


def test_reused_and_unfinished_trials_are_not_on_the_pareto_front() -> None:
    again = trial(1, 0.9, macs=10, reused=0)
    running = TrialRecord(**{**vars(trial(2, 0.99, macs=1)), "state": "running"})
    foreign = TrialRecord(**{**vars(trial(3, 0.99, macs=1)), "widths": {}, "costs": {}})
    front = front_of([trial(0, 0.9, macs=10), again, running, foreign], OBJECTIVES)
    assert [each.number for each in front] == [0]
    assert front_of([running], OBJECTIVES) == []


def test_the_best_score_wins_then_the_cheapest_then_the_first() -> None:
    records = [trial(0, 0.8, macs=1), trial(1, 0.9, macs=7), trial(2, 0.9, macs=5), trial(3, 0.9, macs=5)]
    assert best_of(records, OBJECTIVES).number == 2
    assert best_of(records, ("score",)).number == 1


def timed(record: TrialRecord, ratio: float, met: bool | None) -> TrialRecord:
    measured = MeasuredLatency(20 * ratio, (0.0, 99.0), ratio, (0.0, 1.0), met)
    return dataclasses.replace(record, measured=measured)


def test_a_measured_cost_replaces_its_prediction() -> None:
    """The machine is half as fast as it was when the table was measured: 20 ms for the dense model's 10."""
    predicted = trial(0, 0.9, macs=7, latency_ms=4.0)
    assert predicted.cost("latency_ms") == 4.0
    assert predicted.cost("latency_ms", 10.0) == 4.0
    assert timed(predicted, 0.5, None).cost("latency_ms") == 10.0
    assert timed(predicted, 0.5, None).cost("latency_ms", 10.0) == 5.0
    assert timed(predicted, 0.5, None).cost("macs", 10.0) == 7
    assert predicted.cost("size_bytes") == np.inf


def test_a_pareto_front_uses_measured_costs() -> None:
    """Predicted cheaper than the second, the first was measured to be dearer; the third is over the limit."""
    first = timed(trial(0, 0.8, latency_ms=4.0), 0.6, True)
    second = trial(1, 0.8, latency_ms=5.0)
    third = timed(trial(2, 0.95, latency_ms=5.5), 0.7, False)
    objectives = ("score", "latency_ms")
    assert [each.number for each in front_of([first, second, third], objectives, 10.0)] == [1]
    assert best_of([first, second], objectives, 10.0).number == 1


def test_two_hosts_keep_their_own_measurements(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    here = create_study(url, "a", config={}, identity={}, facts=FACTS)
    for number in range(2):
        here.tell(here.optuna.ask().number, TrialState.COMPLETE, [0.5 + number])
    there = open_study(url, "a")
    there.records()
    measured = MeasuredLatency(4.0, (3.9, 4.1), 0.5, (0.4, 0.6), True, surely=False)
    here.store_measured(0, measured)
    there.store_measured(1, dataclasses.replace(measured, met=False))
    found = [record.measured for record in open_study(url, "a").records()]
    assert found == [measured, dataclasses.replace(measured, met=False)]


def test_objectives_and_directions_read_back(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    create_study(url, "one", config={}, identity={}, facts=FACTS)
    create_study(url, "two", config={}, identity={}, facts=FACTS, objectives=("score", "macs", "size_bytes"))
    assert open_study(url, "one").objectives == ("score",)
    assert open_study(url, "two").objectives == ("score", "macs", "size_bytes")
    names = [each.name for each in optuna.load_study(study_name="two", storage=url).directions]
    assert names == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]


def test_an_empty_study_of_other_directions_is_created_again(tmp_path: Path) -> None:
    """It was killed before it knew what it is; the next search of that name has another objective."""
    url = f"sqlite:///{tmp_path}/study.db"
    optuna.create_study(storage=url, study_name="a", direction="maximize")
    study = create_study(url, "a", config={}, identity={}, facts=FACTS, objectives=("score", "macs"))
    study.tell(study.optuna.ask().number, TrialState.COMPLETE, [0.5, 100.0])
    assert open_study(url, "a").optuna.trials[0].values == [0.5, 100.0]
    with pytest.raises(StudyError, match="a study of that name exists"):
        create_study(url, "a", config={}, identity={}, facts=FACTS)
