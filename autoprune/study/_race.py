"""The race of a study: how far its entrants are trained, their scores, and the winner.

Each entrant is a note of its own, so that a kill loses no stage. The result is a note that is stored last.

Example:
    race = study.race()
    race.result.winner, race.entries[race.result.winner].score
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from autoprune.config.rungs import score_text
from autoprune.errors import StudyError
from autoprune.study._long_values import read_note
from autoprune.support.arrays import FloatArray
from autoprune.support.schema import Strict, read_as

RACE = "autoprune:race"
"""The key of the note with the result. That of an entrant ends with its number."""

LEASE = f"{RACE}:lease"

_ADVICE = "Restore the storage from a copy."


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


_Point = Annotated[list[float], Field(min_length=3, max_length=3)]


class StageRecord(Strict):
    """The score of an entrant at the end of a stage.

    Attributes:
        epochs: length of the training so far.
        score: the metric on the validation part.
        error: standard error of the score over the draw of the samples, or None if it is not known.
        seconds: duration of the stage.
        learning_rate: the highest one of the training, or None for finetune.learning_rate.
        curve: [epoch, loss, score] of each epoch since the stage before.
    """

    epochs: int
    score: float
    error: float | None = None
    seconds: float = 0.0
    learning_rate: float | None = None
    curve: list[_Point] = Field(default_factory=list)


class StageFailure(Strict):
    """The failure of an entrant in a stage.

    Attributes:
        epochs: the epochs after which the stage ends.
        learning_rate: the highest one of the training, or None for finetune.learning_rate.
        reason: the cause in a sentence.
        race: the race in which a worker died, by `race_key`. None if the training diverged, as it would in
            every race.
    """

    epochs: int
    learning_rate: float | None
    reason: str
    race: str | None = None


class RaceEntry(Strict):
    """An entrant of a race.

    Attributes:
        settings: fingerprint of the settings of its training.
        stages: the stages that it has trained, in order.
        failures: the stages in which it failed.
        samples: the values of the samples after the last epoch of the latest whole training, or None if the
            metric is not a mean over samples.
    """

    settings: str
    stages: list[StageRecord] = Field(default_factory=list)
    failures: list[StageFailure] = Field(default_factory=list)
    samples: Samples | None = None

    def at(self, epochs: int, learning_rate: float | None = None) -> StageRecord | None:
        """Return the stage that ended after some epochs, or None if the entrant was not trained so far.

        Args:
            epochs: length of the training.
            learning_rate: its learning rate, or None for finetune.learning_rate.
        """
        wanted = (epochs, learning_rate)
        return next((each for each in self.stages if (each.epochs, each.learning_rate) == wanted), None)

    def failure(self, epochs: int, learning_rate: float | None, race: str) -> StageFailure | None:
        """Return the failure in a stage of a race, or None.

        A dead worker counts in its own race only, but there at each learning rate, because its death
        depends on none of them.

        Args:
            epochs: the epochs after which the stage ends.
            learning_rate: that of the training, or None for finetune.learning_rate.
            race: the race, by `race_key`.
        """
        return next(
            (
                each
                for each in self.failures
                if each.epochs == epochs
                and (each.learning_rate == learning_rate if each.race is None else each.race == race)
            ),
            None,
        )

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

    def __str__(self) -> str:
        """Return such as "0.02 (0.9134)" or "1 (diverged)"."""
        return (
            f"{self.learning_rate:g} ({'diverged' if self.score is None else score_text(self.score, None)})"
        )


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

    @property
    def key(self) -> str:
        """The race by its entrants and learning rates."""
        return race_key(self.entrants, [each.learning_rate for each in self.tried[1:]])

    def rate_at(self, end: int) -> float | None:
        """Return the learning rate of the stage that ends after some epochs: the chosen one if known by then.

        It is None for finetune.learning_rate.
        """
        return None if self.compared is None or end < self.compared else self.learning_rate


def race_key(entrants: Sequence[int], others: Sequence[float]) -> str:
    """Return the name of a race among those with equal settings of [finetune].

    Args:
        entrants: numbers of the trials that take part.
        others: the learning rates that are compared with finetune.learning_rate.
    """
    return f"{list(entrants)} {list(others)}"


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
        """Return the stage of an entrant by its epochs, or None if it was not trained so far."""
        return self.entries[number].at(end, self.result.rate_at(end))

    def failure(self, number: int) -> str | None:
        """Return why an entrant left the race, or None."""
        entry, result = self.entries[number], self.result
        found = (entry.failure(end, result.rate_at(end), result.key) for end in result.ends)
        return next((each.reason for each in found if each is not None), None)


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
        raise StudyError(f"{_where(study, RACE)}: its winner did not take part. {_ADVICE}")
    return Race(result, entries)


def _where(study: str, key: str) -> str:
    return f"{study}: {key} is damaged"
