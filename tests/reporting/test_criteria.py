"""The criteria that trials chose from are ranked by what their scores say."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autoprune.config.rungs import RungScore
from autoprune.reporting import summary_notes
from autoprune.reporting._criteria import criterion_scores
from autoprune.study import TrialRecord
from tests.reporting.test_tables import RECORD, SUMMARY

WORTH = {"l1": 0.80, "obs": 0.90, "taylor": 0.85}


def trials(count: int, noise: float = 0.0) -> list[TrialRecord]:
    """Return trials of six groups whose scores are the mean worth of their criteria, and noise."""
    rng = np.random.default_rng(0)
    found = []
    for number in range(count):
        chosen = rng.choice(list(WORTH), 6).tolist()
        score = float(np.mean([WORTH[name] for name in chosen]) + noise * rng.normal())
        criteria = {f"group{place}": name for place, name in enumerate(chosen)}
        scores = (RungScore(0, "50 steps", score, 0.0),)
        found.append(dataclasses.replace(RECORD, number=number, scores=scores, criteria=criteria))
    return found


def test_the_worth_of_each_criterion_is_recovered() -> None:
    found = criterion_scores(trials(20))
    assert [each.criterion for each in found] == ["obs", "taylor", "l1"]
    for each in found:
        assert each.score == pytest.approx(WORTH[each.criterion], abs=1e-9)
        assert each.error == pytest.approx(0, abs=1e-9)
        assert each.trials == 20
    assert sum(each.share for each in found) == pytest.approx(1)


def test_the_standard_error_covers_noise() -> None:
    found = criterion_scores(trials(200, noise=0.05))
    off = [(each.score - WORTH[each.criterion]) / each.error for each in found]
    assert np.abs(off).max() < 3
    assert max(each.error for each in found) < 0.05


def test_the_standard_error_grows_as_shares_come_close_to_collinear() -> None:
    def errors(spread: float) -> list[float]:
        """Return the errors of trials whose shares of two criteria differ by little."""
        rng, found = np.random.default_rng(0), []
        for number in range(40):
            count = round(500 + spread * rng.uniform(-500, 500))
            chosen = ["l1"] * count + ["obs"] * (1000 - count)
            scores = (RungScore(0, "50 steps", 0.9 + 0.01 * rng.normal(), 0.0),)
            criteria = {f"group{place}": name for place, name in enumerate(chosen)}
            found.append(dataclasses.replace(RECORD, number=number, scores=scores, criteria=criteria))
        return [each.error for each in criterion_scores(found)]

    assert min(errors(0.01)) > 50 * max(errors(1.0))


def test_criteria_in_a_fixed_proportion_are_not_ranked() -> None:
    def always_both(record: TrialRecord, number: int) -> TrialRecord:
        pairs = 1 + number % 3
        names = ["l1", "obs"] * pairs + ["taylor"] * (8 - 2 * pairs)
        return dataclasses.replace(
            record, criteria={f"group{place}": name for place, name in enumerate(names)}
        )

    records = [always_both(record, number) for number, record in enumerate(trials(20, noise=0.05))]
    assert criterion_scores(records) == ()  # taylor alone is separate, so there is nothing to compare


def test_warm_starts_reused_scores_and_pruned_trials_do_not_count() -> None:
    records = trials(12)
    wrong = (RungScore(0, "50 steps", 0.0, 0.0),)
    others = [
        dataclasses.replace(records[0], scores=wrong, origin="uniform"),
        dataclasses.replace(records[0], scores=wrong, reused=1),
        dataclasses.replace(records[0], scores=wrong, state="pruned"),
    ]
    assert criterion_scores([*records, *others]) == criterion_scores(records)


def test_few_trials_or_one_criterion_are_not_compared() -> None:
    assert criterion_scores(trials(5)) == ()
    alone = [dataclasses.replace(each, criteria={"group0": "l1"}) for each in trials(20)]
    assert criterion_scores(alone) == ()
    assert criterion_scores([RECORD] * 20) == ()


def test_the_report_names_the_best_criterion_first() -> None:
    notes = summary_notes(dataclasses.replace(SUMMARY, records=tuple(trials(20))))
    (line,) = [note for note in notes if note.startswith("Criteria")]
    assert "by the scores of 20 trials: obs 0.9000 ±0.0000, taylor 0.8500 ±0.0000, l1 0.8000" in line
