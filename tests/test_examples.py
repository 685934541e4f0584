"""The notebooks of experiments/examples: they equal their sources, and they run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tests.guide.markdown import blocks, links

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")
make: Any = pytest.importorskip("experiments.examples.make")


@pytest.mark.parametrize("name", make.NAMES)
def test_a_notebook_is_small_and_equals_its_source(name: str) -> None:
    path = make.FOLDER / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    cells = [(cell.cell_type, cell.source) for cell in notebook.cells]
    assert cells == list(make.cells_of(make.source_of(name)))
    assert path.stat().st_size < make.MOST_BYTES
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert any(cell.outputs for cell in code)
    assert all(output.output_type != "error" for cell in code for output in cell.outputs)
    assert "/tmp" not in path.read_text("utf-8")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", make.NAMES)
def test_a_notebook_runs(name: str, tmp_path: Path) -> None:
    before = [(cell.cell_type, cell.source) for cell in make.make_notebook(make.source_of(name)).cells]
    ran = make.run_notebook(make.make_notebook(make.source_of(name)), tmp_path)
    assert [(cell.cell_type, cell.source) for cell in ran.cells] == before
    assert (tmp_path / "runs").is_dir()


README = (Path(__file__).parents[1] / "experiments" / "examples" / "README.md").read_text("utf-8")


def lines_of_the_table() -> list[str]:
    """Return the code in the last column of the table of tools."""
    return re.findall(r"\| `([^`|]+)`[^|`]*\|$", README.partition("## For users")[2], flags=re.MULTILINE)


def test_each_line_of_the_table_of_tools_is_part_of_the_script_below_it() -> None:
    (script,) = blocks(README, "python")
    assert len(lines_of_the_table()) == 15
    assert [line for line in lines_of_the_table() if line not in script] == []
    assert [link for link in links(README) if not (make.FOLDER / link).is_file()] == []


@pytest.mark.slow
def test_the_script_below_the_table_of_tools_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "tools"}
    (script,) = blocks(README, "python")
    exec(compile(script, "README.md", "exec"), names)
    assert (tmp_path / "small.onnx").is_file()
    assert names["result"].name == "tools"
