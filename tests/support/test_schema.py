"""Values against schemas: a match is returned, and anything else is refused in one line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from autoprune.errors import StudyError
from autoprune.support.schema import Strict, read_as


class Inner(Strict):
    widths: dict[str, int]


class Outer(Strict):
    score: float
    inner: Inner | None = None


@dataclass(frozen=True)
class Plain:
    threads: int


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_what_fits_is_returned_with_keys_of_later_versions() -> None:
    read = read_as(Outer, {"score": 1, "later": [1]}, where="a", error=StudyError, advice="Restore it.")
    assert (read.score, read.model_extra) == (1.0, {"later": [1]})
    assert read_as(Plain, {"threads": 2}, where="a", error=StudyError, advice="Restore it.") == Plain(2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (None, r"a: got None, expected keys with values\. Restore it\."),
        ({}, r"a: score is missing\. Restore it\."),
        ({"score": "0.5"}, r"a: score: got '0\.5', expected a valid number\. Restore it\."),
        ({"score": math.nan}, r"a: score: got nan, expected a finite number\. Restore it\."),
        ({"score": 10**400}, r"a: score: got 1000\d+\.\.\.\d+"),
        ({"score": True}, r"a: score: got True, expected a valid number"),
        ({"score": 1, "inner": {"widths": {"conv\n1": 0.5}}}, r"a: inner\.widths\.conv\\\\?n1: got 0\.5"),
        ({"score": "x" * 10**6}, r"a: score: got 'x+\.\.\.x+', expected"),
        ({"score": deep(100_000)}, r"a: score: got \[\[\[\.\.\.\]\]\], expected a valid number"),
    ],
)
def test_what_does_not_fit_is_one_short_line(values: Any, message: str) -> None:
    with pytest.raises(StudyError, match=message) as caught:
        read_as(Outer, values, where="a", error=StudyError, advice="Restore it.")
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)
