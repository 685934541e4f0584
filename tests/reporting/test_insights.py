"""Insights of a study: how many trials were enough, and which groups matter."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from autoprune.config.rungs import RungScore
from autoprune.engines import TrialRunner, run_search
from autoprune.reporting._insights import FEWEST_TRIALS, enough_trials, group_importances
from autoprune.study import TrialRecord
from tests.engines.toy import new_study, toy_space
from tests.reporting.test_tables import RECORD


def records(*scores: float, error: float | None = None) -> list[TrialRecord]:
    return [
        dataclasses.replace(RECORD, number=number, scores=(RungScore(0, "calibrate", score, 0.1, error),))
        for number, score in enumerate(scores)
    ]


def test_trials_are_enough_once_the_best_is_within_noise() -> None:
    scores = (0.5, 0.8, 0.7, 0.89, 0.9)
    curve = records(*scores)
    assert enough_trials(curve) == 5
    assert enough_trials(records(*scores, error=0.02)) == 4
    assert enough_trials(records(*scores, error=0.11)) == 2
    pruned = [dataclasses.replace(each, state="pruned") for each in curve]
    assert enough_trials([*curve[:3], *pruned[3:]]) == 2
    assert enough_trials(pruned) is None


def of_the_last_group(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
    yield RungScore(0, "calibrate", list(widths.values())[-1] / 100, 0.0)


def test_the_keep_ratio_that_decides_the_score_matters_most(tmp_path: Path) -> None:
    study, space = new_study(f"journal:///{tmp_path}/study.log"), toy_space()

    def importances(trials: int) -> dict[str, float]:
        runner = TrialRunner(study, space, sampler="random", pruner="none", trials=trials, seed=0)
        run_search("serial", runner, lambda: of_the_last_group)
        return group_importances(study)

    assert importances(FEWEST_TRIALS - 1) == {}
    found = importances(2 * FEWEST_TRIALS)
    assert sum(found.values()) == pytest.approx(1.0)
    assert next(iter(found)) == space.variables[-1].name


def always_the_same(widths: Mapping[str, int], seed: int) -> Iterator[RungScore]:
    yield RungScore(0, "calibrate", 0.5, 0.0)


def test_equal_scores_have_no_importances(tmp_path: Path) -> None:
    study, space = new_study(f"journal:///{tmp_path}/study.log"), toy_space()
    runner = TrialRunner(study, space, sampler="random", pruner="none", trials=FEWEST_TRIALS, seed=0)
    run_search("serial", runner, lambda: always_the_same)
    assert group_importances(study) == {}
