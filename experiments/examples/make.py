"""Makes the notebooks of this folder from their readable sources, the Markdown files of the same names.

A block of Python in a source is a cell of code, and the text between the blocks is a cell of prose.

    python -m experiments.examples.make                 # writes all notebooks, with the outputs of a run
    python -m experiments.examples.make segmentation    # one of them
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat as untyped_nbformat
from nbclient import NotebookClient

nbformat: Any = untyped_nbformat  # the package ships no types

FOLDER = Path(__file__).parent
NAMES = ("own_classifier", "timm_new_head", "segmentation", "device_latency", "reading_a_report")
"""The notebooks in the order in which a newcomer would read them."""

LIMIT_S = 900
"""Time limit of a cell in seconds, on a busy machine."""

MOST_BYTES = 100_000
"""Largest notebook with its outputs."""

_BLOCK = re.compile(r"```python\n(.*?)```\n?", re.DOTALL)


def source_of(name: str) -> str:
    """Return the Markdown from which a notebook is made."""
    return (FOLDER / f"{name}.md").read_text("utf-8")


def cells_of(source: str) -> Iterator[tuple[str, str]]:
    """Yield (type, text) of each cell, where the type is "markdown" or "code"."""
    for place, text in enumerate(_BLOCK.split(source)):
        if text.strip():
            yield ("code" if place % 2 else "markdown"), text.strip()


def make_notebook(source: str) -> Any:
    """Return the notebook of a source, without outputs."""
    makers = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    cells = [
        makers[kind](text, id=f"cell-{number}")  # the same each time, so that only changes differ
        for number, (kind, text) in enumerate(cells_of(source))
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": spec})


def run_notebook(notebook: Any, folder: Path) -> Any:
    """Run a notebook in a folder, and return it with its outputs, but without warnings and logs.

    Raises:
        CellExecutionError: a cell has raised an error.
    """
    client = NotebookClient(notebook, timeout=LIMIT_S, resources={"metadata": {"path": str(folder)}})
    client.execute()
    notebook = nbformat.reads(nbformat.writes(notebook).replace(f"{folder}/", ""), as_version=4)
    for cell in notebook.cells:
        cell.pop("execution_count", None)
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.metadata.pop("execution", None)
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
            for output in cell.outputs:
                if "execution_count" in output:
                    output.execution_count = None
    return notebook


def main(names: list[str]) -> None:
    """Write notebooks with the outputs of a run."""
    for name in names or NAMES:
        with tempfile.TemporaryDirectory() as folder:
            notebook = run_notebook(make_notebook(source_of(name)), Path(folder))
        nbformat.validate(notebook)
        (FOLDER / f"{name}.ipynb").write_text(nbformat.writes(notebook) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
