"""The expected time of a search, and its message."""

from __future__ import annotations

import dataclasses

import pytest

from autoprune.config import load_config
from autoprune.data import VisionData, load
from autoprune.run._measuring.expected_time import Pace
from autoprune.run._resolving.spec import RunSpec

PACE = Pace(step_s=0.5, image_s=0.001)


@pytest.fixture(scope="module")
def data() -> VisionData:
    """Give 1,151 training images in 17 batches of 64, and 287 to validate with."""
    return load("digits", batch_size=64, val_fraction=0.2)


def test_a_trial_is_recalibrated_once_and_trained_and_evaluated_on_each_rung(data: VisionData) -> None:
    settings = {
        "data": {"name": "digits", "batch_size": 64},
        "score": {"rungs": ["calibrate", "30 steps", "1 epoch"], "calibration_batches": 10},
    }
    config = RunSpec.of(settings)
    recalibrated, trained, evaluated = 10 * 64 * 0.001, (30 + 17) * 0.5, 3 * 287 * 0.001
    assert len(data.train) == 17
    assert PACE.trial_s(config, data) == pytest.approx(recalibrated + trained + evaluated)
    config = RunSpec.of(load_config(settings, ["score.teacher=dense"]))
    followed = (30 + 17) * 64 * 0.001
    assert PACE.trial_s(config, data) == pytest.approx(recalibrated + trained + evaluated + followed)


@pytest.mark.parametrize(
    ("rungs", "recalibrations"),
    [(["repair"], 1), (["repair", "calibrate"], 1), (["supernet", "repair"], 2), (["repair", "30 steps"], 1)],
)
def test_a_trial_is_repaired_once_and_recalibrated_with_each_cut(
    data: VisionData, rungs: list[str], recalibrations: int
) -> None:
    score = {"rungs": rungs, "calibration_batches": 10}
    config = RunSpec.of({"data": {"name": "digits", "batch_size": 64}, "score": score})
    pace = dataclasses.replace(PACE, repair_s=3.0)
    recalibrated, evaluated = recalibrations * 10 * 64 * 0.001, len(rungs) * 287 * 0.001
    trained = 30 * 0.5 if "30 steps" in rungs else 0.0
    assert pace.trial_s(config, data) == pytest.approx(3.0 + recalibrated + evaluated + trained)


@pytest.mark.parametrize(
    ("engine", "workers", "at_once"), [("serial", 4, 1), ("processes", 4, 4), ("ray", 100, 10)]
)
def test_trials_that_run_at_once_share_the_time(
    data: VisionData, engine: str, workers: int, at_once: int
) -> None:
    search = {"trials": 10, "engine": engine, "workers": workers}
    config = RunSpec.of({"data": {"name": "digits"}, "search": search})
    assert PACE.search_s(config, data) == pytest.approx(10 * PACE.trial_s(config, data) / at_once)


def test_the_training_of_a_supernet_is_a_part_of_the_search(data: VisionData) -> None:
    supernet = {"epochs": 2, "subnets": 3}
    values = {"data": {"name": "digits"}, "score": {"rungs": ["supernet"]}, "supernet": supernet}
    config = RunSpec.of(load_config(values, ["search.trials=10"]))
    trained = 2 * (17 * 5 * 0.5 + 287 * 0.001)
    assert PACE.search_s(config, data) == pytest.approx(trained + 10 * PACE.trial_s(config, data))
    said = PACE.announcement(config, data, plans=None)
    assert said.startswith("10 trials take about ")
    assert said.endswith(" with the training of the supernet, at the dense model's speed")


@pytest.mark.parametrize(("plans", "said"), [(1, "1 trial takes about 5 s"), (3, "3 trials take about 16 s")])
def test_no_more_trials_are_announced_than_there_are_plans(data: VisionData, plans: int, said: str) -> None:
    config = RunSpec.of({"data": {"name": "digits", "batch_size": 64}, "score": {"rungs": ["10 steps"]}})
    config = config.with_search(trials=10)
    config = dataclasses.replace(config, score=dataclasses.replace(config.score, calibration_batches=0))
    assert PACE.announcement(config, data, plans).startswith(said)
