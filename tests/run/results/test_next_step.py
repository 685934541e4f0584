"""The line that a saved model ends with."""

from __future__ import annotations

from pathlib import Path

from autoprune.run import after_saving


def test_a_folder_without_an_exported_file_names_the_command_that_writes_one(tmp_path: Path) -> None:
    assert after_saving(tmp_path, "autoprune export s") == f"Saved in {tmp_path}. Next: autoprune export s"


def test_a_folder_with_one_names_its_readme(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").touch()
    expected = f"Saved in {tmp_path}. README.md there shows how to load the model."
    assert after_saving(tmp_path, "autoprune export s") == expected
