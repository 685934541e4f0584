"""The lines that a search leaves in a terminal or a log, and its bar."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from autoprune.cli._progress import Screen
from autoprune.run import Counted, TrialDone

DONE = TrialDone(3, "complete", 0.9123, "MACs", 0.4567, 12.34, "", done=4, trials=8, best=(0.9123, 0.4567))


@pytest.mark.parametrize(("latency_ms", "said"), [(None, ""), (1.0824, "  latency 1.08 ms")])
def test_a_trials_line_shows_milliseconds_if_latency_is_limited(latency_ms: float | None, said: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    with Screen(console) as watch:
        watch(dataclasses.replace(DONE, latency_ms=latency_ms))
    assert isinstance(console.file, io.StringIO)
    line = f"trial   3  score  0.9123  MACs  45.7%{said}    12.3 s  complete"
    assert console.file.getvalue().splitlines()[0] == line


def test_a_trials_line_shows_the_standard_error_of_its_score() -> None:
    console = Console(file=io.StringIO(), width=100)
    with Screen(console) as watch:
        watch(dataclasses.replace(DONE, error=0.00451))
    assert isinstance(console.file, io.StringIO)
    assert "score 0.9123 ±0.0045  MACs" in console.file.getvalue()


def test_one_bar_at_a_time_is_left_when_another_count_begins() -> None:
    """A count that ends before its total, as a timing does whose candidates settle early, leaves no bar."""
    watch = Screen(Console(file=io.StringIO(), width=80))

    def bars() -> list[tuple[str, float]]:
        return [(bar.description, bar.completed) for bar in watch._progress.tasks]

    with watch:
        watch(Counted("timing candidates", 97, 245))
        watch(Counted("timing candidates", 98, 245))
        assert bars() == [("timing candidates", 98)]
        watch(DONE)
        assert bars() == [("searching", 4)]
        watch(dataclasses.replace(DONE, number=7, done=8))
        assert bars() == []
        watch(Counted("timing candidates", 1, 5))
        assert bars() == [("timing candidates", 1)]
