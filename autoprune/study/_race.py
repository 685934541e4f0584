"""The race of a study: how far its entrants are trained, their scores, and the winner.

Each entrant is a note of its own, so that a kill loses no stage. The result is a note that is stored last.

Example:
    race = study.race()
    race.result.winner, race.entries[race.result.winner].score
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from autoprune.errors import StudyError
from autoprune.study._long_values import read_note
from autoprune.support.arrays import FloatArray
from autoprune.support.schema import Strict, read_as

RACE = "autoprune:race"
"""The key of the note with the result. That of an entrant ends with its number."""

LEASE = f"{RACE}:lease"

_ADVICE = "restore the storage from a copy."


class Samples(Strict):
    """The value of each sample of the validation part, in the order of the samples.

    Attributes:
        count: number of samples.
        kind: "bits" if every value is 0 or 1, else "float16".
        data: the values in base64.
    """

    count: int = Field(ge=1)
    kind: Literal["bits", "float16"]
    data: str

    @classmethod
    def pack(cls, values: FloatArray) -> Samples:
        """Store values [n]. Values other than 0 and 1 are rounded to half precision."""
        is_hit = bool(np.isin(values, (0.0, 1.0)).all())
        raw = np.packbits(values.astype(bool)) if is_hit else values.astype("<f2")
        data = base64.b64encode(raw.tobytes()).decode("ascii")
        return cls(count=len(values), kind="bits" if is_hit else "float16", data=data)

    def values(self) -> FloatArray:
        """Return the values [n].

        Raises:
            ValueError: the data are damaged.
        """
        raw = base64.b64decode(self.data, validate=True)
        if self.kind == "float16":
            values = np.frombuffer(raw, dtype="<f2").astype(np.float64)
        else:
            bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8))
            values = bits[: self.count].astype(np.float64)
        if len(values) != self.count:
            raise ValueError(f"got {len(values)} values, expected {self.count}")
        return values


class StageRecord(Strict):
    """The score of an entrant at the end of a stage.

    Attributes:
        epochs: length of the training so far.
        score: the metric on the validation part.
        error: standard error of the score over the draw of the samples, or None if it is not known.
        seconds: duration of the stage.
    """

    epochs: int
    score: float
    error: float | None = None
    seconds: float = 0.0


class RaceEntry(Strict):
    """An entrant of a race.

    Attributes:
        settings: fingerprint of the settings of its training.
        stages: the stages that it has trained, in order.
        samples: the values of the samples after the last epoch, or None if the metric is not a mean over
            samples.
        failure: why the entrant left the race, or None.
    """

    settings: str
    stages: list[StageRecord] = Field(default_factory=list)
    samples: Samples | None = None
    failure: str | None = None

    def at(self, epochs: int) -> StageRecord | None:
        """Return the stage that ended after some epochs, or None if the entrant was not trained so far."""
        return next((stage for stage in self.stages if stage.epochs == epochs), None)

    @property
    def last(self) -> StageRecord:
        """The last stage that the entrant has trained."""
        return self.stages[-1]


class RaceResult(Strict):
    """The result of a race.

    Attributes:
        settings: fingerprint of the settings of the trainings.
        entrants: numbers of the trials that took part.
        ends: the epochs after which the stages ended.
        winner: number of the trial that won.
        uniform: number of the trial with one keep ratio for all groups, or None if it did not take part.
    """

    settings: str
    entrants: list[int]
    ends: list[int]
    winner: int
    uniform: int | None = None


@dataclass(frozen=True)
class Race:
    """A race that has ended: its result, and {trial: its entry}."""

    result: RaceResult
    entries: Mapping[int, RaceEntry]

    @property
    def winner(self) -> RaceEntry:
        """The entry of the winner."""
        return self.entries[self.result.winner]


def entry_key(number: int) -> str:
    """Return the key of the note on an entrant."""
    return f"{RACE}:{number}"


def read_entry(values: Any, study: str, number: int) -> RaceEntry:
    """Read the note on an entrant.

    Raises:
        StudyError: it is damaged.
    """
    return read_as(
        RaceEntry, values, where=_where(study, entry_key(number)), error=StudyError, advice=_ADVICE
    )


def read_race(notes: Mapping[str, Any], study: str) -> Race | None:
    """Return the race of a study, or None if none has ended.

    Raises:
        StudyError: a note is damaged.
    """
    if notes.get(RACE) is None:
        return None
    result = read_as(RaceResult, notes[RACE], where=_where(study, RACE), error=StudyError, advice=_ADVICE)
    entries = {
        number: read_entry(read_note(notes, entry_key(number), study), study, number)
        for number in result.entrants
    }
    if result.winner not in entries or not entries[result.winner].stages:
        raise StudyError(f"{_where(study, RACE)}: its winner did not take part; {_ADVICE}")
    return Race(result, entries)


def _where(study: str, key: str) -> str:
    return f"{study}: {key} is damaged"
