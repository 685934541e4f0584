"""How rungs agree: known orders, intervals that cover, and a warning that comes when it should."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.stats import kendalltau, spearmanr

from autoprune.config import load_config
from autoprune.config.rungs import RungScore
from autoprune.reporting import summary_notes
from autoprune.reporting._agreement import PREDICTS, agreements, rho_interval, tau_interval
from autoprune.run import change_spec, settle
from autoprune.study import TrialRecord
from autoprune.study._records import State
from tests.reporting.test_tables import RECORD, SUMMARY

NAMES = ("calibrate", "50 steps", "200 steps")


def records(*rungs: list[float]) -> list[TrialRecord]:
    """Return one record a trial, of the rungs that have a score for it."""
    found = []
    for number in range(len(rungs[0])):
        scores = [scores[number] for scores in rungs if number < len(scores)]
        climbed = tuple(RungScore(i, NAMES[i], score, 0.0) for i, score in enumerate(scores))
        state: State = "pruned" if len(climbed) < len(rungs) else "complete"
        found.append(dataclasses.replace(RECORD, number=number, scores=climbed, state=state))
    return found


def test_neighbours_and_the_ends_are_compared_over_those_that_climbed_both() -> None:
    first = [float(n) for n in range(12)]
    second = [float(n) for n in range(10)]
    third = [-float(n) for n in range(6)]
    found = agreements(records(first, second, third))
    assert [(each.lower, each.upper, each.trials, each.reached) for each in found] == [
        ("calibrate", "50 steps", 10, 12),
        ("50 steps", "200 steps", 6, 10),
        ("calibrate", "200 steps", 6, 12),
    ]
    assert [round(each.tau, 9) for each in found] == [1, -1, -1]
    assert [round(each.rho, 9) for each in found] == [1, -1, -1]
    assert 0.5 < found[0].tau_interval[0] < found[0].tau_interval[1] == pytest.approx(1)


def test_reused_scores_count_once_and_constant_ones_have_no_rank() -> None:
    rising = [float(n) for n in range(6)]
    made = records(rising, rising)
    again = [dataclasses.replace(record, reused=0) for record in made]
    assert agreements(made + again) == agreements(made)
    assert agreements(records(rising, [0.5] * 6)) == ()
    assert agreements(records([0.5] * 6, rising)) == ()
    assert agreements(records(rising[:4], rising[:4])) == ()


@pytest.mark.parametrize("correlation", [0.0, 0.5, 0.9])
def test_intervals_cover_the_true_value_nineteen_times_of_twenty(correlation: float) -> None:
    """Of normal pairs tau is 2/pi asin(r) and rho 6/pi asin(r/2).

    1000 draws put 95% within 1.4 points (2 sd); the formulas, approximations, may be off by some 3 more.
    """
    generator = np.random.default_rng(0)
    true = 2 / np.pi * np.arcsin(correlation), 6 / np.pi * np.arcsin(correlation / 2)
    covered = np.zeros(2)
    for _ in range(1000):
        x, noise = generator.normal(size=(2, 30))
        y = correlation * x + np.sqrt(1 - correlation**2) * noise
        intervals = (
            tau_interval(float(kendalltau(x, y).statistic), 30),
            rho_interval(float(spearmanr(x, y).statistic), 30),
        )
        covered += [low <= value <= high for (low, high), value in zip(intervals, true, strict=True)]
    assert np.all(np.abs(covered / 1000 - 0.95) < 0.045)


def test_a_rung_that_predicts_seldom_stops_the_best() -> None:
    generator = np.random.default_rng(0)
    correlation = np.sin(np.pi / 2 * PREDICTS)  # of normal pairs with that tau
    dear = generator.normal(size=(4000, 50))
    cheap = correlation * dear + np.sqrt(1 - correlation**2) * generator.normal(size=dear.shape)
    best = np.take_along_axis(cheap, dear.argmax(axis=1)[:, None], axis=1)[:, 0]
    assert np.mean(best < np.median(cheap, axis=1)) == pytest.approx(1 / 8, abs=0.02)


def notes_on(made: list[TrialRecord]) -> list[str]:
    return summary_notes(dataclasses.replace(SUMMARY, agreements=agreements(made)))


def test_a_rung_that_does_not_predict_is_reported_with_advice() -> None:
    generator = np.random.default_rng(1)
    cheap, dear = generator.normal(size=(2, 30)).tolist()
    *_, figures, warning = notes_on(records(cheap, dear))
    assert "over 30 trials." in figures
    assert "Spearman's rho" in figures
    assert warning == (
        f'Warning: "calibrate" does not predict "50 steps": the whole interval of tau is below {PREDICTS}. '
        'Leave "calibrate" out of the next search\'s score.rungs.'
    )


def test_a_rung_on_which_all_are_equal_is_reported_as_uninformative() -> None:
    """As recalibration is if all candidates are at chance."""
    *_, figures, warning = notes_on(records([0.1] * 12, [float(n) for n in range(12)]))
    assert figures == '"calibrate" and "50 steps": all 12 trials are equal on the first.'
    assert warning == (
        'Warning: "calibrate" gave all 12 trials the same score: it cannot rank them. '
        'Leave "calibrate" out of the next search\'s score.rungs.'
    )


def test_too_few_trials_are_reported_as_uninformative() -> None:
    generator = np.random.default_rng(3)
    cheap, dear = generator.normal(size=(2, 12)).tolist()
    *_, figures = notes_on(records(cheap, dear))
    assert figures.endswith("over 12 trials, too few to decide whether it predicts.")
    *_, figures = notes_on(records(cheap, cheap))
    assert figures.endswith("over 12 trials.")


def test_pruned_trials_of_a_finished_search_will_not_climb() -> None:
    rising = [float(n) for n in range(12)]
    made = records(rising, rising[:8])
    running = [*made, dataclasses.replace(RECORD, number=12, state="running", scores=())]
    for trials, said in (
        (made, "(4 more have no later score)."),
        (running, "(4 more have no later score so far)."),
    ):
        summary = dataclasses.replace(SUMMARY, records=tuple(trials), agreements=agreements(trials))
        assert any(note.endswith(said) for note in summary_notes(summary))


def test_with_pruned_trials_the_warning_is_a_doubt_and_a_resume_can_prune_no_more() -> None:
    generator = np.random.default_rng(1)
    cheap, dear = generator.normal(size=(2, 30)).tolist()
    *_, figures, warning = notes_on(records(cheap, dear[:20]))
    assert "over 20 trials (10 more have no later score)" in figures
    assert warning.startswith(
        f'Warning: "calibrate" may not predict "50 steps": the whole interval of tau is below {PREDICTS}'
    )
    assert "pruned trials are missing from tau" in warning
    asked = warning.rpartition("--set ")[2].partition(")")[0]
    assert change_spec(settle(load_config("digits")), [asked]).search.pruner == "none"


def test_what_helps_follows_from_the_rung_that_fails() -> None:
    generator = np.random.default_rng(1)
    first, second, third = generator.normal(size=(3, 30)).tolist()
    made = records(first, [score + 0.01 for score in first], third)
    *_, warning = notes_on([dataclasses.replace(each, scores=each.scores[1:]) for each in made])
    assert warning.endswith('Make "50 steps" longer in the next search\'s score.rungs.')
    shared = [
        dataclasses.replace(
            each, scores=(dataclasses.replace(each.scores[0], name="supernet"), each.scores[1])
        )
        for each in records(first, second)
    ]
    *_, warning = notes_on(shared)
    assert warning.endswith("Train the next search's supernet longer (score.supernet.epochs).")


def test_no_warning_without_evidence() -> None:
    cheap = [float(n) for n in range(30)]
    good = [score + 3 * (-1) ** n for n, score in enumerate(cheap)]
    for pairs in (records(cheap, good), records(cheap[:9], cheap[8::-1])):
        summary = dataclasses.replace(SUMMARY, agreements=agreements(pairs))
        assert len(summary.agreements) == 1
        assert not any("Warning" in note for note in summary_notes(summary))
