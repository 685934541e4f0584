"""Durations in words."""

from __future__ import annotations

import pytest

from autoprune.progress import time_text


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.2, "1 s"),
        (40, "40 s"),
        (89, "89 s"),
        (91, "2 min"),
        (25 * 60, "25 min"),
        (100 * 60, "1.7 h"),
        (30 * 3600, "30 h"),
        (100 * 3600, "4 days"),
    ],
)
def test_times_are_shown_in_a_unit_that_suits_them(seconds: float, said: str) -> None:
    assert time_text(seconds) == said
