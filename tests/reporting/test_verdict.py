"""The verdict of a race: the interval of a paired difference, and the sentence that it ends in."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autoprune.config.rungs import RungScore
from autoprune.errors import StudyError
from autoprune.reporting import race_table, summary_notes
from autoprune.reporting._agreement import agreements
from autoprune.reporting._verdict import Verdict, paired_interval, verdict_of
from autoprune.study import Race, RaceEntry, RaceResult, Samples, StageFailure, StageRecord
from autoprune.support.arrays import FloatArray
from tests.reporting.test_tables import RECORD, SUMMARY, drawn


def hits(rng: np.random.Generator, images: int, gain: float) -> tuple[FloatArray, FloatArray]:
    """Return the hits of two models that differ on a tenth of the images."""
    kind = rng.choice(3, size=images, p=[0.05 + gain / 2, 0.05 - gain / 2, 0.9])
    first = np.where(kind == 0, 1.0, np.where(kind == 1, 0.0, 1.0))
    return first, np.where(kind == 0, 0.0, 1.0)


def values(rng: np.random.Generator, images: int, gain: float) -> tuple[FloatArray, FloatArray]:
    shared = rng.normal(size=images)
    return shared + gain + 0.1 * rng.normal(size=images), shared + 0.1 * rng.normal(size=images)


@pytest.mark.parametrize("draw", [hits, values])
@pytest.mark.parametrize("gain", [0.0, 0.03])
def test_intervals_cover_the_true_gain_nineteen_times_of_twenty(draw: object, gain: float) -> None:
    """At least: McNemar's exact interval is cautious. The bounds are 4 standard errors of 200 draws."""
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = paired_interval(*draw(rng, 400, gain))  # type: ignore[operator]
        assert found is not None
        covered += found[0] <= gain <= found[1]
    assert covered / 200 > 0.95 - 4 * (0.95 * 0.05 / 200) ** 0.5


def test_equal_models_differ_by_nothing_and_one_image_has_no_interval() -> None:
    same = np.array([1.0, 0.0, 1.0])
    assert paired_interval(same, same) == (0.0, 0.0)
    assert paired_interval(0.5 * same, 0.5 * same) == (0.0, 0.0)
    assert paired_interval(same[:1], same[:1]) is None


def race(first: FloatArray | None, uniform: FloatArray | None, winner: int) -> Race:
    """Return a race of trial 7, uniform (trial 0) and a trial that stopped after an epoch."""

    def entry(found: FloatArray | None, score: float) -> RaceEntry:
        stages = [StageRecord(epochs=1, score=0.1), StageRecord(epochs=4, score=score)]
        return RaceEntry(settings="s", stages=stages, samples=None if found is None else Samples.pack(found))

    entries = {
        0: entry(uniform, 0.5 if uniform is None else float(uniform.mean())),
        3: RaceEntry(settings="s", stages=[StageRecord(epochs=1, score=0.9)]),
        7: entry(first, 0.6 if first is None else float(first.mean())),
    }
    result = RaceResult(settings="s", entrants=[0, 3, 7], ends=[1, 4], winner=winner, uniform=0)
    return Race(result, entries)


def test_the_sentence_says_what_was_found() -> None:
    right, wrong = np.ones(1000), np.zeros(1000)
    better = np.r_[right[:880], wrong[:120]]
    worse = np.r_[right[:800], wrong[:200]]
    clear = verdict_of(race(better, worse, 7), "s")
    assert clear.is_clear
    assert clear.sentence.startswith("The winner, trial 7, is 8.00 points (95% interval ")
    assert clear.sentence.endswith(") above uniform at the same budget.")
    near = np.r_[wrong[:2], right[2:801], wrong[801:]]
    noise = verdict_of(race(worse, near, 7), "s")
    assert not noise.is_clear
    assert noise.sentence.startswith(
        "Uniform, trial 0, is as good within noise here: take it. The winner, trial 7, is 0.10 points (95% "
    )
    same = verdict_of(race(worse, worse, 0), "s")
    assert same.sentence.startswith("Uniform, trial 0, is as good within noise here: take it. The best ")
    lost = verdict_of(race(worse, better, 0), "s")
    assert lost.sentence.startswith(
        "Uniform, trial 0, is the best here: take it. The best other one, trial 7, is 8.00 points (95% "
    )
    assert lost.sentence.endswith("below it at the same budget.")
    assert (lost.gain, lost.interval) == (-clear.gain, tuple(-end for end in clear.interval or ())[::-1])


def test_metrics_that_are_no_share_of_hits_are_compared_in_their_own_unit() -> None:
    rng = np.random.default_rng(0)
    first, second = values(rng, 500, 0.25)
    found = verdict_of(race(first, second, 7), "s")
    assert found.sentence.startswith(f"The winner, trial 7, is {found.gain:.4g} (95% interval 0.2")
    unknown = verdict_of(race(None, None, 7), "s")
    assert unknown.sentence == (
        "Trial 7 is 0.1 above uniform, trial 0, at the same budget. No interval is known, since the metric "
        "is not known to be a mean over images."
    )


def test_without_uniform_or_without_another_there_is_nothing_to_compare() -> None:
    assert "won the race. No trial with one keep ratio" in Verdict(winner=7).sentence
    assert Verdict(winner=0, uniform=0).sentence.startswith("Uniform, trial 0, won the race: take it.")


@pytest.mark.parametrize(
    "found", [np.array([1.0, 0.0, 1.0]), np.ones(9), np.array([0.25, -3.0, 0.1])], ids=["bits", "9", "floats"]
)
def test_samples_are_read_as_they_were_stored(found: FloatArray) -> None:
    stored = Samples.pack(found)
    assert Samples.model_validate(stored.model_dump(mode="json")) == stored
    np.testing.assert_allclose(stored.values(), found, rtol=1e-3)
    damaged = race(found, found, 7)
    damaged.entries[7] = damaged.entries[7].model_copy(  # type: ignore[index]
        update={"samples": stored.model_copy(update={"data": "AA" * 9})}
    )
    with pytest.raises(StudyError, match="s: the samples of a race are damaged"):
        verdict_of(damaged, "s")


def test_the_report_ends_with_the_verdict_after_what_else_was_found() -> None:
    records = tuple(
        dataclasses.replace(
            RECORD,
            number=number,
            scores=(
                RungScore(0, "calibrate", 0.1 * number, 0.1),
                RungScore(1, "25 steps", 0.5 - 0.1 * (number - 3) ** 2, 0.1),
                RungScore(2, "75 steps", 0.9 - 0.1 * (number - 3) ** 2, 0.1),
            ),
            origin="uniform" if number == 0 else "sampler",
        )
        for number in range(12)
    )
    entries = {
        number: RaceEntry(settings="s", stages=[StageRecord(epochs=1, score=0.1 * number, error=0.01)])
        for number in range(5)
    }
    diverged = StageFailure(epochs=1, learning_rate=None, reason="diverged")
    entries[4] = entries[4].model_copy(update={"failures": [diverged]})
    finished = Race(RaceResult(settings="s", entrants=list(range(5)), ends=[1], winner=3, uniform=0), entries)
    summary = dataclasses.replace(
        SUMMARY,
        rungs=("calibrate", "25 steps", "75 steps"),
        records=records,
        best=records[3],
        agreements=agreements(records),
        race=finished,
        importances={"b": 0.7, "a": 0.3},
    )
    *_, rung, race_note, trials, groups, verdict = summary_notes(summary)
    assert rung == 'Of the cheaper rungs, "25 steps" predicted "75 steps" best, with tau 1.00.'
    assert race_note.startswith('"75 steps" predicted the race after 1 epoch with tau 0.74 (')
    assert trials.startswith("4 of the 12 trials would have been enough")
    assert groups.endswith(": b (70%), a (30%).")
    assert "Trial 3 is 0.3 above uniform, trial 0" in verdict
    table = drawn(race_table(summary))
    rows = [line.split()[0] for line in table.splitlines() if line.strip() and line.split()[0].isdigit()]
    assert rows == ["3", "4", "2", "1", "0"]
    assert "0.4000 ±0.0100" in table
    assert "left the race" in table
    assert "trained fully" in summary_notes(summary)[0]
