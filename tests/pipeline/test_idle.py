"""Settings that change nothing are said; those that are read, or left alone, are not."""

from __future__ import annotations

import pytest

from autoprune.config import load_config
from autoprune.pipeline.events import Event, Stage
from autoprune.pipeline.idle import IDLE, tell_idle

ONE_RUNG = "score.rungs=['calibrate']"
NO_SENSITIVITY = "search.warm_starts=['uniform']"

CASES: list[tuple[list[str], str]] = [
    (["latency.batch=32"], "[latency] is set, but nothing is timed: neither budget.latency"),
    (["evolution.crossover=0.1"], '[evolution] is set, but only the sampler "evolution"'),
    (["supernet.epochs=3"], "[supernet] is set, but no supernet is trained"),
    (["search.workers=4"], 'search.workers is set, but the engine "serial" runs one trial at a time'),
    (
        ["search.cpus_per_trial=1", "search.workers=4"],
        "search.workers and search.cpus_per_trial are set, but",
    ),
    (["search.gpus_per_trial=0.5"], 'search.gpus_per_trial is set, but only the engine "ray" reads that'),
    (["search.address=auto", "search.engine=processes"], "search.address is set, but only the engine"),
    (["score.teacher=dense", ONE_RUNG], "score.teacher is set, but no rung of score.rungs trains"),
    (["score.learning_rate=0.1", "score=supernet"], "score.learning_rate is set, but no rung of score.rungs"),
    (["search.pruner=halving", ONE_RUNG], "search.pruner is set, but score.rungs has one rung"),
    (["search.sensitivity_evaluations=9", NO_SENSITIVITY], 'does not name "sensitivity"'),
    (["search.sensitivity_images=9", NO_SENSITIVITY], 'does not name "sensitivity"'),
    (["search.sensitivity_batches=9", NO_SENSITIVITY], 'nor is search.sampler "kl"'),
]

READ = [
    [],
    ["latency.batch=32", "search.divisor=auto"],
    ["latency.batch=32", "budget.latency=60%"],
    ["latency.batch=32", "search.objectives=['score', 'latency']"],
    ["evolution.crossover=0.1", "search.sampler=evolution"],
    ["supernet.epochs=3", "score=supernet"],
    ["search.workers=4", "search.cpus_per_trial=1", "search.engine=processes"],
    ["search.gpus_per_trial=0.5", "search.address=auto", "search.engine=ray"],
    ["score.teacher=dense", "score.learning_rate=0.1", "score.rungs=['3 steps']"],
    ["search.pruner=halving", "score.rungs=['calibrate', '1 epoch']"],
    ["search.pruner=none", ONE_RUNG],
    ["search.sensitivity_evaluations=9", "search.sensitivity_batches=9", "search.sensitivity_images=9"],
    ["search.sensitivity_batches=9", NO_SENSITIVITY, "search.sampler=kl"],
    ["search.workers=2", "score.teacher=none", ONE_RUNG],
]


def told(overrides: list[str]) -> list[str]:
    events: list[Event] = []
    tell_idle(load_config("digits", overrides), events.append)
    return [event.text for event in events if isinstance(event, Stage)]


@pytest.mark.parametrize(("overrides", "said"), CASES)
def test_what_changes_nothing_is_said_in_one_line(overrides: list[str], said: str) -> None:
    (text,) = told(overrides)
    assert said in text


@pytest.mark.parametrize("overrides", READ)
def test_what_is_read_or_left_alone_is_not_said(overrides: list[str]) -> None:
    assert told(overrides) == []


def test_every_row_has_a_case() -> None:
    said = " ".join(text for overrides, _ in CASES for text in told(overrides))
    assert all(idle.why in said for idle in IDLE)


def test_a_resume_looks_at_what_it_was_given_alone() -> None:
    events: list[Event] = []
    config = load_config("digits", ["latency.batch=32", "search.workers=4", "search.cpus_per_trial=1"])
    tell_idle(config, events.append, only=["search.workers", "search.trials"])
    (event,) = events
    assert isinstance(event, Stage)
    assert event.text.startswith("search.workers is set, but")
