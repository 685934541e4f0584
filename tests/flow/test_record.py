"""The record of a flow: only the files of its own stages go when it is cleared."""

from __future__ import annotations

from pathlib import Path

from autoprune.flow import FlowRecord
from autoprune.flow._record import Measured

STAGES = ["sparsify", "mypkg.stages:half"]


def test_only_the_files_of_its_own_stages_are_cleared(tmp_path: Path) -> None:
    measured = Measured(setting={}, divisor=1, latency=None, step_ms=1.0, score=1.0, cost={})
    record = FlowRecord(tmp_path, {}, {"flow": {"stages": STAGES}}, measured)
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
