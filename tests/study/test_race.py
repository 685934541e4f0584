"""The notes of a race in a study: long ones are stored in parts, damaged ones are refused in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autoprune.errors import StudyError
from autoprune.study import RaceEntry, RaceResult, Samples, SearchStudy, StageRecord
from autoprune.study._long_values import PART_CHARS
from autoprune.study._race import LEASE, RACE, entry_key
from tests.engines.toy import new_study


@pytest.fixture
def study(tmp_path: Path) -> SearchStudy:
    return new_study(f"journal:///{tmp_path}/study.log")


def entry(images: int) -> RaceEntry:
    samples = Samples.pack(np.random.default_rng(0).normal(size=images))
    return RaceEntry(settings="s", stages=[StageRecord(epochs=4, score=0.5, error=0.1)], samples=samples)


def test_entries_of_many_images_are_read_as_they_were_stored(study: SearchStudy) -> None:
    long = entry(40_000)
    assert long.samples is not None
    assert len(long.samples.data) > 3 * PART_CHARS
    study.store_race_entry(3, long)
    study.store_race_entry(5, entry(10))
    assert max(len(str(value)) for value in study.optuna.user_attrs.values()) < 2 * PART_CHARS
    assert study.race() is None
    study.store_race(RaceResult(settings="s", entrants=[3, 5], ends=[4], winner=5))
    race = study.race()
    assert race is not None
    assert race.entries == {3: long, 5: entry(10)}
    assert (race.winner, study.race_entry(3), study.race_entry(4)) == (entry(10), long, None)


def test_damaged_notes_are_refused_with_their_key(study: SearchStudy) -> None:
    study.store_race_entry(3, entry(10))
    study.store_race(RaceResult(settings="s", entrants=[3], ends=[4], winner=4))
    with pytest.raises(StudyError, match=r"^toy: autoprune:race is damaged: its winner did not take part"):
        study.race()
    study.store_note(RACE, {"winner": 3})
    with pytest.raises(StudyError, match=r"^toy: autoprune:race is damaged: settings is missing"):
        study.best()
    study.store_note(entry_key(3), {"settings": 3})
    with pytest.raises(StudyError, match=r"^toy: autoprune:race:3 is damaged: settings: got 3"):
        study.race_entry(3)


def test_an_interrupted_claim_leaves_no_lease(study: SearchStudy, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(seconds: float) -> None:
        assert study.note(LEASE) is not None
        raise KeyboardInterrupt

    monkeypatch.setattr("autoprune.study._notes.time.sleep", interrupt)
    with pytest.raises(KeyboardInterrupt), study.racing():
        pass
    assert study.note(LEASE) is None
