"""Settings that change nothing are said; those that are read, or left alone, are not."""

from __future__ import annotations

from typing import Any

import pytest

from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.run import Event, Stage
from autoprune.run._unused_settings import IDLE, tell_idle

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
    (
        ["finetune.temperature=2", "finetune.distill_weight=0.9", "finetune.teacher=none"],
        'finetune.distill_weight and finetune.temperature are set, but finetune.teacher is "none"',
    ),
    (
        ["score.moment_images=9", "search.warm_starts=['uniform']"],
        'neither score.rungs names "repair" nor search.warm_starts "reconstruction", and search.criterion',
    ),
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
    ["score.moment_images=9"],
    ["score.moment_images=9", "search.warm_starts=[]", "search.criterion=obs"],
    ["score.moment_images=9", "score=repair"],
    ["search.workers=4", "search.cpus_per_trial=1", "search.engine=processes"],
    ["search.gpus_per_trial=0.5", "search.address=auto", "search.engine=ray"],
    ["score.teacher=dense", "score.learning_rate=0.1", "score.rungs=['3 steps']"],
    ["search.pruner=halving", "score.rungs=['calibrate', '1 epoch']"],
    ["finetune.temperature=2", "finetune.distill_weight=0.9"],
    ["search.pruner=none", ONE_RUNG],
    ["search.sensitivity_evaluations=9", "search.sensitivity_batches=9", "search.sensitivity_images=9"],
    ["search.sensitivity_batches=9", NO_SENSITIVITY, "search.sampler=kl"],
    ["search.workers=2", "score.teacher=none", ONE_RUNG],
]

LOADERS = {"loaders": "mypkg.data:make"}
SEPARATE = "the validation part is one of its own"

DATA_CASES: list[tuple[dict[str, Any], str]] = [
    ({"name": "digits", "folder": "photos"}, "data.folder is set, but the digits come with scikit-learn"),
    ({"name": "digits", "workers": 4}, 'data.workers is set, but only data.name = "folder"'),
    ({**LOADERS, "workers": 4}, 'data.workers is set, but only data.name = "folder"'),
    ({**LOADERS, "augment": False}, "data.augment is set, but loaders of your own"),
    ({**LOADERS, "val_fraction": 0.3}, f"data.val_fraction is set, but {SEPARATE}"),
    ({"name": "folder", "val_fraction": 0.3}, f"data.val_fraction is set, but {SEPARATE}"),
    (
        {"name": "digits", "validation": "mypkg.data:held_out", "checkpoint_saw_validation": True},
        f"data.checkpoint_saw_validation is set, but {SEPARATE}",
    ),
    ({"val_fraction": 0.3}, f"data.val_fraction is set, but {SEPARATE}"),
    ({"name": "folder", "seed": 3}, "data.seed is set, but a folder has its parts already"),
    (
        {"folder": "photos", "image_size": 64},
        "data.folder and data.image_size are set, but a script brought the data",
    ),
]

DATA_READ: list[dict[str, Any]] = [
    {"name": "cifar10", "folder": "photos", "augment": False, "seed": 3, "val_fraction": 0.3},
    {"name": "cifar10", "checkpoint_saw_validation": True},
    {"name": "folder", "folder": "photos", "augment": False, "workers": 4, "image_size": 64},
    {**LOADERS, "folder": "photos", "seed": 3, "batch_size": 4},
    {"batch_size": 4},
]


def told(overrides: list[str]) -> list[str]:
    return told_of(load_config("digits", overrides))


def told_of(config: RunConfig) -> list[str]:
    events: list[Event] = []
    tell_idle(config, events.append)
    return [event.text for event in events if isinstance(event, Stage)]


@pytest.mark.parametrize(("data", "said"), DATA_CASES)
def test_what_of_the_data_changes_nothing_is_said(data: dict[str, Any], said: str) -> None:
    """Data without a name are those of a script."""
    (text,) = told_of(load_config({"data": data}))
    assert said in text


@pytest.mark.parametrize("data", DATA_READ)
def test_what_of_the_data_is_read_is_not_said(data: dict[str, Any]) -> None:
    assert told_of(load_config({"data": data})) == []


@pytest.mark.parametrize(("overrides", "said"), CASES)
def test_what_changes_nothing_is_said_in_one_line(overrides: list[str], said: str) -> None:
    (text,) = told(overrides)
    assert said in text


@pytest.mark.parametrize("overrides", READ)
def test_what_is_read_or_left_alone_is_not_said(overrides: list[str]) -> None:
    assert told(overrides) == []


def test_every_row_has_a_case() -> None:
    said = " ".join(
        [text for overrides, _ in CASES for text in told(overrides)]
        + [text for data, _ in DATA_CASES for text in told_of(load_config({"data": data}))]
    )
    assert all(idle.why in said for idle in IDLE)


def test_a_resume_looks_at_what_it_was_given_alone() -> None:
    events: list[Event] = []
    config = load_config("digits", ["latency.batch=32", "search.workers=4", "search.cpus_per_trial=1"])
    tell_idle(config, events.append, only=["search.workers", "search.trials"])
    (event,) = events
    assert isinstance(event, Stage)
    assert event.text.startswith("search.workers is set, but")


def test_a_resume_is_told_what_of_the_data_changes_nothing() -> None:
    events: list[Event] = []
    config = load_config("digits", ["data.folder=photos", "data.workers=4"])
    tell_idle(config, events.append, only=["data.workers"])
    (event,) = events
    assert isinstance(event, Stage)
    assert event.text.startswith("data.workers is set, but")
