"""The plan of a race: its stages, who enters, who goes on, and how many epochs that takes."""

from __future__ import annotations

import dataclasses

import pytest

from autoprune.config.rungs import RungScore
from autoprune.config.settings import RaceSettings, ScoreSettings
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.race_plan import (
    choose_entrants,
    expected_epochs,
    learning_rates,
    places,
    race_epochs,
    stage_ends,
    survivors,
    trained_steps,
    uniform_of,
)
from autoprune.run._trials.retraining import COOL_DOWN
from autoprune.study import TrialRecord
from tests.reporting.test_tables import RECORD


@pytest.mark.parametrize(
    ("epochs", "ends"),
    [(1, (1,)), (2, (1, 2)), (4, (1, 4)), (15, (1, 4, 15)), (20, (1, 5, 20)), (90, (6, 22, 90))],
)
def test_stages_end_after_a_sixteenth_and_a_quarter(epochs: int, ends: tuple[int, ...]) -> None:
    assert stage_ends(epochs) == ends


def test_those_of_the_best_mean_rank_go_on_and_uniform_always_does() -> None:
    scores = {0: (0.1, 0.1), 3: (0.5, 0.9), 4: (0.6, 0.7), 7: (0.7, 0.8), 8: (0.4, 0.4)}
    steps = (40, 40)
    assert survivors(scores, steps, 2, uniform=0) == [7, 3, 0], "equal ranks of 7 and 3 are 1 + 2 and 3 + 1"
    assert survivors(scores, steps, 2, uniform=3) == [7, 4, 3]
    assert survivors(scores, steps, 1, uniform=None) == [7]
    assert survivors(scores, steps, 1, uniform=5) == [7], "uniform diverged, or did not enter"
    assert survivors({0: (0.5,)}, (40,), 1, uniform=0) == [0]
    assert survivors({4: (0.2, 0.3), 3: (0.3, 0.2), 2: (0.2, 0.3)}, steps, 2, uniform=None) == [2, 4]


def test_the_score_of_a_longer_training_weighs_more() -> None:
    scores = {1: (0.9, 0.5), 2: (0.8, 0.6), 3: (0.5, 0.9)}
    assert survivors(scores, (100, 50), 1, uniform=None) == [1], "ranks 1 and 3, 2 and 2, 3 and 1"
    assert survivors(scores, (50, 100), 1, uniform=None) == [3]
    assert survivors(scores, (0, 100), 3, uniform=None) == [3, 2, 1], "a rung that trains nothing"


def test_an_entrant_has_trained_on_the_rungs_and_in_the_stages() -> None:
    spec = dataclasses.replace(RunSpec(), score=ScoreSettings(rungs=("repair", "25 steps", "2 epochs")))
    assert trained_steps(spec, (1, 5), 40) == [25 + 2 * 40, 1.25 * 40, 1.25 * 5 * 40]
    assert trained_steps(RunSpec.of({"score": {"rungs": ["repair"]}}), (), 40) == [0]


@pytest.mark.parametrize("epochs", [1, 2, 5, 15, 20, 90])
@pytest.mark.parametrize("uniform", [True, False])
def test_the_epochs_of_a_race_are_those_of_its_stages(epochs: int, uniform: bool) -> None:
    trained = dict.fromkeys(range(10), 0.0)
    racing, number, cooled = list(trained), 0 if uniform else None, 0.0
    for stage, end in enumerate(stage_ends(epochs)):
        if stage:
            scores = {each: (float(each),) for each in racing}
            count = places(len(trained) - uniform, len(stage_ends(epochs)) - 1 - stage)
            racing = survivors(scores, (1,), count, uniform=number)
        trained.update(dict.fromkeys(racing, float(end)))
        cooled += COOL_DOWN * end * len(racing) if end < epochs else 0
    found = race_epochs(epochs, 10 - uniform, uniform=uniform)
    assert found == pytest.approx(sum(trained.values()) + cooled)


@pytest.mark.parametrize("epochs", [2, 20])
def test_each_further_learning_rate_trains_those_before_the_last_stage(epochs: int) -> None:
    plain, more = (race_epochs(epochs, 6, uniform=True, rates=rates) for rates in (1, 3))
    end = stage_ends(epochs)[-2]
    racing = 1 + (places(6, 1) if len(stage_ends(epochs)) > 2 else 6)
    assert more - plain == pytest.approx(2 * racing * (1 + COOL_DOWN) * end)


def test_learning_rates_are_compared_unless_there_is_one_stage() -> None:
    spec = dataclasses.replace(RunSpec(), race=RaceSettings(learning_rates=(0.2, 0.05, 0.01, 0.2)))
    assert learning_rates(spec) == (None, 0.2, 0.01), "0.05 is that of [finetune]"
    short = dataclasses.replace(spec, finetune=dataclasses.replace(spec.finetune, epochs=1))
    assert learning_rates(short) == (None,)
    assert expected_epochs(spec) > expected_epochs(RunSpec())


def test_a_race_by_default_takes_less_than_four_finetunes() -> None:
    assert 3 < expected_epochs(RunSpec()) / RunSpec().finetune.epochs < 4
    assert expected_epochs(dataclasses.replace(RunSpec(), race=RaceSettings(entrants=1))) == 0


def record(number: int, score: float, origin: str = "sampler", width: int | None = None) -> TrialRecord:
    return dataclasses.replace(
        RECORD,
        number=number,
        scores=(RungScore(0, "calibrate", score, 0.1),),
        widths={"conv1": number if width is None else width},
        origin=origin,
    )


def test_the_best_trials_uniform_and_the_best_of_each_family_enter_once() -> None:
    records = [
        record(0, 0.2, "uniform"),
        record(1, 0.3, "l1, own.module:start"),
        record(2, 0.4, "l2"),
        record(3, 0.1, "taylor"),
        record(4, 0.9),
        record(5, 0.8),
        record(6, 0.9, width=4),  # the widths of trial 4
        record(7, 0.7),
    ]
    entrants = choose_entrants(records, records, most=2)
    assert [each.number for each in entrants] == [0, 1, 2, 3, 4, 5]
    assert uniform_of(entrants) == 0
    within = choose_entrants(records[4:], records[4:], most=3)
    assert [each.number for each in within] == [4, 5, 7]
    assert uniform_of(within) is None


def test_a_warm_start_enters_for_a_trial_of_the_same_candidate() -> None:
    records = [record(0, 0.2, "uniform", width=4), record(1, 0.5, width=4), record(2, 0.3)]
    entrants = choose_entrants(records, records, most=2)
    assert [each.number for each in entrants] == [0, 2]
    assert uniform_of(entrants) == 0
