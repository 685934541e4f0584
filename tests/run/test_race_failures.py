"""Failures of entrants: each counts from its stage on, and only in the races that it says something about."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from autoprune.config.rungs import RungScore
from autoprune.engines import run_search
from autoprune.errors import TrialError
from autoprune.execution import Setting
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.run._trials.race import run_race
from autoprune.run._trials.race_plan import RaceStage
from autoprune.run._trials.race_trainer import StageScore
from autoprune.study import Race, StageFailure, race_key
from autoprune.support.events import silent
from tests.engines.toy import make_toy, new_study, toy_runner

TRIALS = 8
MIDDLE, LAST = RaceStage(2), RaceStage(8)


class Scripted:
    """Races of a toy study whose trainings are a script: trial n has the score 0.9 - n / 100.

    Attributes:
        diverge: the trainings that diverge, as (trial, stage).
        stop: the training at which the race is interrupted, if any.
        trained: the trainings so far.
    """

    def __init__(self, folder: Path) -> None:
        self.spec = RunSpec.of({"output": {"folder": str(folder)}, "race": {"entrants": TRIALS}})
        self.spec = dataclasses.replace(
            self.spec, finetune=dataclasses.replace(self.spec.finetune, epochs=LAST.end)
        )
        self.study = new_study(f"journal:///{folder}/study.log")
        run_search("serial", toy_runner(self.study, "random", TRIALS, "none"), make_toy)
        self.numbers = {tuple(each.widths.values()): each.number for each in self.study.finished()}
        self.diverge: set[tuple[int, RaceStage]] = set()
        self.stop: tuple[int, RaceStage] | None = None
        self.trained: list[tuple[int, RaceStage]] = []

    def __call__(self, widths: Mapping[str, int], stage: RaceStage) -> Iterator[RungScore]:
        number = self.numbers[tuple(widths.values())]
        if (number, stage) == self.stop:
            self.stop = None
            raise KeyboardInterrupt
        self.trained.append((number, stage))
        failure = "it diverged." if (number, stage) in self.diverge else None
        score = 0.9 - number / 100 + (stage.learning_rate or 0.0)
        yield StageScore(0, "", score, 0.0, failure=failure)

    def race(self, *rates: float) -> Race:
        """Run the race, which compares these learning rates with that of [finetune]."""
        race = dataclasses.replace(self.spec.race, learning_rates=rates)
        spec = dataclasses.replace(self.spec, race=race)
        dense = SimpleNamespace(data=SimpleNamespace(train=range(10)))
        parts = SimpleNamespace(spec=spec, setting=Setting(), watch=silent, dense=dense)
        run_race(cast(Run, parts), self.study, self.made)
        found = self.study.race()
        assert found is not None
        return found

    def made(self) -> Scripted:
        return self

    def trained_at(self, stage: RaceStage) -> list[int]:
        return [number for number, each in self.trained if each == stage]


@pytest.fixture
def scripted(tmp_path: Path) -> Scripted:
    return Scripted(tmp_path)


def test_a_failure_counts_from_its_stage_on_if_the_race_resumes(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    whole = Scripted(tmp_path / "whole")
    whole.race()
    first, second, *others = whole.trained_at(MIDDLE)
    scripted = Scripted(tmp_path)
    scripted.diverge, scripted.stop = {(first, MIDDLE)}, (second, MIDDLE)
    with pytest.raises(KeyboardInterrupt):
        scripted.race()
    race = scripted.race()
    assert scripted.trained_at(MIDDLE) == [first, second, *others], "nobody takes the failed one's place"
    assert race.result.winner == second
    assert [number for number in race.entries if race.failure(number)] == [first]
    assert race.failure(first) == "it diverged."


def test_a_diverged_entrant_competes_at_another_learning_rate(scripted: Scripted) -> None:
    scripted.diverge = {(number, LAST) for number in scripted.numbers.values()}
    with pytest.raises(TrialError, match=r"toy: race: no entrant is left\. Trial \d: it diverged\."):
        scripted.race()
    race = scripted.race(0.1)
    assert race.result.learning_rate == 0.1
    assert scripted.trained_at(RaceStage(8, 0.1)) == scripted.trained_at(LAST)
    assert not any(map(race.failure, race.entries))


def test_a_training_that_diverged_is_not_repeated_in_another_race(scripted: Scripted) -> None:
    tried = RaceStage(2, 0.1)
    scripted.diverge = {(number, tried) for number in scripted.numbers.values()}
    assert [each.score is None for each in scripted.race(0.1).result.tried] == [False, True]
    diverged = scripted.trained_at(tried)
    assert scripted.race(0.1, 0.2).result.learning_rate == 0.2
    assert scripted.trained_at(tried) == diverged


def test_an_entrant_whose_worker_died_competes_in_the_next_race(scripted: Scripted) -> None:
    race = scripted.race()
    result = race.result
    key, reason = race_key(result.entrants, [0.1]), "its worker process died."
    failure = StageFailure(epochs=2, learning_rate=None, reason=reason, race=key)
    entry = race.winner.model_copy(update={"failures": [failure]})
    scripted.study.store_race_entry(result.winner, entry)
    dead = scripted.race(0.1)
    assert dead.failure(result.winner) == reason
    assert dead.result.winner != result.winner
    again = scripted.race(0.2)
    assert again.failure(result.winner) is None
    assert again.result.winner == result.winner
