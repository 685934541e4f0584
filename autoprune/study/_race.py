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
        learning_rate: the highest one of the training, or None for finetune.learning_rate.
    """

    epochs: int
    score: float
    error: float | None = None
    seconds: float = 0.0
    learning_rate: float | None = None


class RaceEntry(Strict):
    """An entrant of a race.

    Attributes:
        settings: fingerprint of the settings of its training.
        stages: the stages that it has trained, in order.
        samples: the values of the samples after the last epoch of the latest whole training, or None if the
            metric is not a mean over samples.
        failure: why the entrant left the race, or None.
        diverged: the learning rates at which the training diverged while several were compared.
    """

    settings: str
    stages: list[StageRecord] = Field(default_factory=list)
    samples: Samples | None = None
    failure: str | None = None
    diverged: list[float | None] = Field(default_factory=list)

    def at(self, epochs: int, learning_rate: float | None = None) -> StageRecord | None:
        """Return the stage that ended after some epochs, or None if the entrant was not trained so far.

        Args:
            epochs: length of the training.
            learning_rate: its learning rate, or None for finetune.learning_rate.
        """
        wanted = (epochs, learning_rate)
        return next((each for each in self.stages if (each.epochs, each.learning_rate) == wanted), None)

    @property
    def last(self) -> StageRecord:
        """The end of the longest training, and of equal ones of the latest, whose samples are kept."""
        return max(reversed(self.stages), key=lambda stage: stage.epochs)


class TriedRate(Strict):
    """A learning rate that a race has compared with others.

    Attributes:
        learning_rate: the highest one of the trainings.
        score: the mean score of the entrants that trained with it, or None if some of them diverged.
    """

    learning_rate: float
    score: float | None


class RaceResult(Strict):
    """The result of a race.

    Attributes:
        settings: fingerprint of the settings of the trainings.
        entrants: numbers of the trials that took part.
        ends: the epochs after which the stages ended.
        winner: number of the trial that won.
        uniform: number of the trial with one keep ratio for all groups, or None if it did not take part.
        tried: the learning rates that were compared, finetune.learning_rate first, or none.
        compared: the epochs after which they were compared, or None.
        learning_rate: the one of all trainings from there on, or None for finetune.learning_rate.
    """

    settings: str
    entrants: list[int]
    ends: list[int] = Field(min_length=1)
    winner: int
    uniform: int | None = None
    tried: list[TriedRate] = Field(default_factory=list)
    compared: int | None = None
    learning_rate: float | None = None


@dataclass(frozen=True)
class Race:
    """A race that has ended: its result, and {trial: its entry}."""

    result: RaceResult
    entries: Mapping[int, RaceEntry]

    @property
    def winner(self) -> RaceEntry:
        """The entry of the winner."""
        return self.entries[self.result.winner]

    def stage(self, number: int, end: int) -> StageRecord | None:
        """Return the stage of an entrant by its epochs, or None if it was not trained so far.

        If learning rates were compared by then, it is the stage at the chosen one.
        """
        compared = self.result.compared
        chosen = None if compared is None or end < compared else self.result.learning_rate
        return self.entries[number].at(end, chosen)


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
