"""Worker processes: they share the trials, and their deaths cost no more than a trial."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.engines import Event, run_search
from autoprune.errors import StudyError
from autoprune.study import open_study
from tests.engines.test_serial import TroubledMaker
from tests.engines.toy import make_broken, make_toy, new_study, toy_runner


def test_two_workers_score_what_the_serial_engine_would(url: str, tmp_path: Path, calls: Path) -> None:
    run_search(
        "processes",
        toy_runner(new_study(url), sampler="random", pruner="none"),
        TroubledMaker(calls, "none"),
        workers=2,
    )
    alone = f"sqlite:///{tmp_path}/alone.db"
    run_search("serial", toy_runner(new_study(alone), sampler="random", pruner="none"), make_toy)
    for ours, theirs in zip(
        open_study(url, "toy").records(), open_study(alone, "toy").records(), strict=True
    ):
        assert (ours.widths, ours.value, ours.state) == (theirs.widths, theirs.value, theirs.state)
    assert len({path.name.split("-")[1] for path in calls.iterdir()}) == 2


def test_a_dead_worker_costs_no_trial_the_first_time(url: str, calls: Path) -> None:
    events: list[Event] = []
    runner = toy_runner(new_study(url), sampler="random", pruner="none", trials=6, on_event=events.append)
    run_search("processes", runner, TroubledMaker(calls, "dies once"), workers=1)
    assert [record.state for record in open_study(url, "toy").records()] == ["complete"] * 6
    assert [event.number for event in events if event.kind == "requeued"] == [3]


def test_a_trial_that_kills_its_worker_twice_has_failed(url: str, calls: Path) -> None:
    runner = toy_runner(new_study(url), sampler="random", trials=1)
    run_search("processes", runner, TroubledMaker(calls, "always dies"), workers=1)
    records = open_study(url, "toy").records()
    assert [record.state for record in records] == ["failed"]
    assert records[0].failure is not None
    assert "died 2 times (exit code -9; out of memory?)" in records[0].failure


def test_what_cannot_travel_to_a_worker_is_said_in_one_line(url: str) -> None:
    with pytest.raises(StudyError, match=r"cannot be handed to worker processes .* use engine") as raised:
        run_search("processes", toy_runner(new_study(url)), lambda: make_toy(), workers=1)
    assert "\n" not in str(raised.value)


def test_a_scorer_that_cannot_be_made_ends_the_search(url: str) -> None:
    with pytest.raises(StudyError, match="could not make its scorer: RuntimeError: no data"):
        run_search("processes", toy_runner(new_study(url)), make_broken, workers=1)
