"""The lines that a search leaves in a terminal or a log."""

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console

from autoprune.cli.progress import Screen
from autoprune.pipeline.events import TrialDone

DONE = TrialDone(3, "complete", 0.9123, 0.4567, 12.34, "", done=4, trials=8, best=(0.9123, 0.4567))


@pytest.mark.parametrize(("latency_ms", "said"), [(None, ""), (1.0824, "  latency 1.08 ms")])
def test_a_trials_line_tells_milliseconds_where_latency_is_asked(latency_ms: float | None, said: str) -> None:
    console = Console(file=io.StringIO(), width=80)
    with Screen(console) as watch:
        watch(dataclasses.replace(DONE, latency_ms=latency_ms))
    assert isinstance(console.file, io.StringIO)
    line = f"trial   3  score  0.9123  MACs  45.7%{said}    12.3 s  complete"
    assert console.file.getvalue().splitlines()[0] == line
