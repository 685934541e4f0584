"""The tables of an inspection in a narrow terminal."""

from __future__ import annotations

import io

from rich.console import Console

from autoprune.cli.tables import group_table, inspection_notes
from autoprune.config import load_config
from autoprune.pipeline import inspect


def test_each_group_takes_one_line_of_80_columns_and_reasons_follow() -> None:
    inspection = inspect(load_config("digits", ["search.divisor=16"]))
    console = Console(file=io.StringIO(), width=80)
    console.print(group_table(inspection))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    rows = [line.split() for line in lines if line.strip()][-len(inspection.groups) :]
    assert [row[0] for row in rows] == [group.name for group in inspection.groups]
    assert rows[-1][-1] == "frozen"
    notes = inspection_notes(inspection)
    assert "fc: frozen (the model's output)" in notes
    assert any("too small for the divisor" in note for note in notes)
