"""The record of a flow: only the files of its own stages go when it is cleared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from autoprune.config import load_config
from autoprune.config.settings import RunConfig
from autoprune.errors import StudyError
from autoprune.flow import FlowRecord
from autoprune.flow._record import Measured, to_values

MEASURED: dict[str, Any] = {
    "setting": {},
    "divisor": 1,
    "latency": None,
    "step_ms": 1.0,
    "score": 1.0,
    "cost": {},
}
STAGES = ["sparsify", "mypkg.stages:half"]


def test_only_the_files_of_its_own_stages_are_cleared(tmp_path: Path) -> None:
    record = FlowRecord(tmp_path, {}, {"flow": {"stages": STAGES}}, Measured(**MEASURED))
    record.save()
    folders = ["1-sparsify", "2-mypkg.stages.half"]
    files = ["model.safetensors", "recipe.json", "1-sparsify.training", "1-sparsify-strength-2.training"]
    files += ["12-sparsify.png", "1-sparsify.csv", "1-sparsify.pth", "1-sparsify.db", "1-sparsify.db-wal"]
    other_folders = ["2025-results", "1-select", "3-backup.old", "1-sparsify-old"]
    other_files = ["01-notes.md", "1-sparsify.txt"]
    for name in (*folders, *other_folders):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("text")
    for name in (*files, *other_files):
        (tmp_path / name).write_text("text")
    record.clear()
    assert {path.name for path in tmp_path.iterdir()} == {*other_folders, *other_files}


def test_settings_of_a_search_count_only_if_a_flow_selects_by_one(tmp_path: Path) -> None:
    earlier = load_config(
        {
            "score": {"learning_rate": 0.02, "optimizer": "sgd", "rungs": ["calibrate"]},
            "search": {
                "warm_starts": [],
                "sampler": "random",
                "trials": 7,
                "pruner": "hyperband",
                "evolution": {"population": 9},
            },
        }
    )
    FlowRecord(tmp_path, {}, to_values(earlier), Measured(**MEASURED)).require(RunConfig())
    select = {"select": {"by": "search"}}
    with pytest.raises(StudyError, match=r"half done with score\.learning_rate = 0\.02, now None"):
        FlowRecord(tmp_path, {}, {**to_values(earlier), **select}, Measured(**MEASURED)).require(
            load_config(select)
        )


@pytest.mark.parametrize(
    ("key", "value"), [("search.pruner", "hyperband"), ("search.evolution.population", 9)]
)
def test_the_pruner_and_the_evolution_count_if_a_flow_selects_by_a_search(
    tmp_path: Path, key: str, value: str | int
) -> None:
    _, *names = key.split(".")
    changed: Any = value
    for name in reversed(names):
        changed = {name: changed}
    select = {"select": {"by": "search"}}
    earlier = to_values(load_config({**select, "search": changed}))
    with pytest.raises(StudyError, match=f"half done with {re.escape(key)} = "):
        FlowRecord(tmp_path, {}, earlier, Measured(**MEASURED)).require(load_config(select))
