"""Unused settings are reported. Settings that are used, or not given, are not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.run import Event, Stage
from autoprune.run._checks.choices import TABLES
from autoprune.run._checks.unused_settings import UNUSED, report_unused
from autoprune.run._resolving.spec import RunSpec

ONE_RUNG = "score.rungs=['calibrate']"
NO_SENSITIVITY = "search.warm_starts=['uniform']"

CASES: list[tuple[list[str], str]] = [
    (["latency.batch=32"], "[latency] is set, but nothing is timed: neither budget.latency"),
    (
        ["search.evolution.crossover=0.1"],
        '[search.evolution] is set, but only search.sampler = "evolution"',
    ),
    (["score.supernet.epochs=3"], '[score.supernet] is set, but only score.rungs = "supernet" reads it'),
    (["search.workers=4"], 'search.workers is set, but only search.engine = "processes" or "ray" reads it'),
    (
        ["search.cpus_per_trial=1", "search.workers=4"],
        "search.workers and search.cpus_per_trial are set, but",
    ),
    (["search.ray.gpus_per_trial=0.5"], '[search.ray] is set, but only search.engine = "ray" reads it'),
    (["search.ray.address=auto", "search.engine=processes"], "[search.ray] is set, but only search.engine"),
    (["score.teacher=dense", ONE_RUNG], "score.teacher is set, but no rung of score.rungs trains"),
    (["score.learning_rate=0.1", "score=supernet"], "score.learning_rate is set, but no rung of score.rungs"),
    (
        ["score.moment_images=9", NO_SENSITIVITY, ONE_RUNG],
        '"lasso" or "obs" or search.warm_starts = "reconstruction" or score.rungs = "repair" reads it',
    ),
    (["race.entrants=3", "finetune.epochs=0"], "[race] is set, but there is no race: finetune.epochs is 0"),
    (["race.learning_rates=[0.2]", "race.entrants=1"], "race.learning_rates is set, but a race of several"),
    (["race.learning_rates=[0.2]", "finetune.epochs=1"], "race.learning_rates is set, but a race of several"),
    (["search.sensitivity_evaluations=9", NO_SENSITIVITY], 'only search.warm_starts = "sensitivity"'),
    (["search.sensitivity_images=9", NO_SENSITIVITY], 'only search.warm_starts = "depth" or "sensitivity"'),
    (
        ["search.sensitivity_batches=9", NO_SENSITIVITY],
        '"kl" or search.warm_starts = "depth" or "sensitivity"',
    ),
    (["search.pruner=halving", ONE_RUNG], "search.pruner is set, but score.rungs has one rung"),
]

READ = [
    [],
    ["latency.batch=32", "search.divisor=auto"],
    ["latency.batch=32", "budget.latency=60%"],
    ["latency.batch=32", "search.objectives=['score', 'latency']"],
    ["search.evolution.crossover=0.1", "search.sampler=evolution"],
    ["score.supernet.epochs=3", "score=supernet"],
    ["score.moment_images=9"],
    ["score.moment_images=9", "search.warm_starts=[]", "search.criterion=obs"],
    ["score.moment_images=9", "score=repair"],
    ["search.sensitivity_evaluations=9", "search.sensitivity_batches=9", "search.sensitivity_images=9"],
    ["search.sensitivity_batches=9", NO_SENSITIVITY, "search.sampler=kl"],
    ["search.workers=4", "search.cpus_per_trial=1", "search.engine=processes"],
    ["search.ray.gpus_per_trial=0.5", "search.ray.address=auto", "search.engine=ray"],
    ["score.teacher=dense", "score.learning_rate=0.1", "score.rungs=['3 steps']"],
    ["search.pruner=halving", "score.rungs=['calibrate', '1 epoch']"],
    ["search.pruner=none", ONE_RUNG],
    ["search.workers=2", "score.teacher=none", ONE_RUNG],
    ["race.learning_rates=[0.2]"],
]

LOADERS = {"loaders": "mypkg.data:make"}
SEPARATE = "the validation part is separate"

DATA_CASES: list[tuple[dict[str, Any], str]] = [
    ({"name": "digits", "workers": 4}, 'data.workers is set, but only data.name = "folder"'),
    ({**LOADERS, "workers": 4}, 'data.workers is set, but only data.name = "folder"'),
    ({**LOADERS, "val_fraction": 0.3}, f"data.val_fraction is set, but {SEPARATE}"),
    ({"name": "folder", "val_fraction": 0.3}, f"data.val_fraction is set, but {SEPARATE}"),
    (
        {"name": "digits", "validation": "mypkg.data:held_out", "checkpoint_saw_validation": True},
        f"data.checkpoint_saw_validation is set, but {SEPARATE}",
    ),
    ({"val_fraction": 0.3}, f"data.val_fraction is set, but {SEPARATE}"),
    (
        {"folder": "photos", "image_size": 64},
        "data.folder and data.image_size are set, but a script passed the data",
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
    report_unused(RunSpec.of(config), events.append)
    return [event.text for event in events if isinstance(event, Stage)]


@pytest.mark.parametrize(("data", "said"), DATA_CASES)
def test_a_setting_of_the_data_that_changes_nothing_is_reported(data: dict[str, Any], said: str) -> None:
    """Data without a name are those of a script."""
    (text,) = told_of(load_config({"data": data}))
    assert said in text


@pytest.mark.parametrize("data", DATA_READ)
def test_a_setting_of_the_data_that_is_read_is_not_reported(data: dict[str, Any]) -> None:
    assert told_of(load_config({"data": data})) == []


@pytest.mark.parametrize(("overrides", "said"), CASES)
def test_a_setting_that_changes_nothing_is_one_line(overrides: list[str], said: str) -> None:
    (text,) = told(overrides)
    assert said in text


@pytest.mark.parametrize("overrides", READ)
def test_a_setting_that_is_read_or_default_is_not_reported(overrides: list[str]) -> None:
    assert told(overrides) == []


def test_every_row_has_a_case() -> None:
    said = " ".join(
        [text for overrides, _ in CASES for text in told(overrides)]
        + [text for data, _ in DATA_CASES for text in told_of(load_config({"data": data}))]
    )
    assert all(row.why in said for row in UNUSED)
    read_by_rows = {key for table in TABLES.values() for row in table.values() for key in row.reads}
    assert [key for key in read_by_rows if key not in said] == []


@pytest.mark.parametrize(
    ("key", "changed"),
    [("search.sampler", "search.evolution.crossover=0.1"), ("search.engine", "search.workers=3")],
)
def test_a_row_of_the_users_own_that_does_not_say_may_read_all(
    key: str, changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_row.py").write_text("def make(*_): ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert len(told([changed])) == 1
    assert told([changed, f"{key}=own_row:make"]) == []


def test_a_resume_looks_at_what_it_was_given_alone() -> None:
    events: list[Event] = []
    spec = RunSpec.of(
        load_config("digits", ["latency.batch=32", "search.workers=4", "search.cpus_per_trial=1"])
    )
    report_unused(spec, events.append, only=["search.workers", "search.trials", "search.ray.address"])
    (event,) = events
    assert isinstance(event, Stage)
    assert event.text.startswith("search.workers is set, but")


def test_a_resume_reports_settings_of_the_data_that_change_nothing() -> None:
    events: list[Event] = []
    spec = RunSpec.of(load_config("digits", ["data.folder=photos", "data.workers=4"]))
    report_unused(spec, events.append, only=["data.workers"])
    (event,) = events
    assert isinstance(event, Stage)
    assert event.text.startswith("data.workers is set, but")
