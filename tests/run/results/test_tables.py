"""The tables of an inspection in a narrow terminal."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from rich.console import Console

from autoprune.config import load_config
from autoprune.latency import Measurement, Ratio
from autoprune.run import (
    Bench,
    BenchRow,
    CostRange,
    bench_notes,
    bench_table,
    group_table,
    inspect,
    inspection_notes,
    inspection_table,
)


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


def test_the_reach_of_every_limited_cost_is_shown_next_to_its_limit() -> None:
    inspection = inspect(load_config("digits", ["budget.flops=50%", "budget.peak_memory=60%"]))
    inspection = dataclasses.replace(
        inspection, costs={**inspection.costs, "latency_ms": CostRange(smallest=1, largest=3, dense=4)}
    )
    console = Console(file=io.StringIO(), width=140)
    console.print(inspection_table(inspection))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    found = {row[1]: row[2:] for line in lines if len(row := [cell.strip() for cell in line.split("│")]) > 2}
    assert [found[row][4] for row in ("dense", "largest reachable", "smallest reachable")] == [
        "4 ms (100.0%)",
        "3 ms (75.0%)",
        "1 ms (25.0%)",
    ]
    assert found["requested"][2] == "any"
    assert found["requested"][3].endswith("B (60.0%)")
    assert found["requested"][4] == "any"


def test_models_side_by_side_fit_80_columns() -> None:
    def row(name: str, milliseconds: float, ratio: Ratio | None) -> BenchRow:
        interval = (0.99 * milliseconds, 1.01 * milliseconds)
        return BenchRow(
            Path(name),
            "ONNX Runtime",
            Measurement(milliseconds, interval, 1.2 * milliseconds, 9, 1.0, tight=True),
            ratio,
        )

    dense, small = (
        row("dense.onnx", 12345.6, None),
        row("small.onnx", 0.01, Ratio(0.5, (0.4, 9), tight=False)),
    )
    found = Bench((dense, small), batch=8, threads=2, device="cpu")
    console = Console(file=io.StringIO(), width=80)
    console.print(bench_table(found))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[0].strip() == "One forward pass at batch 8 on cpu, 2 threads"
    assert [line.split() for line in lines if ".onnx" in line] == [
        ["dense.onnx", "ONNX", "12346", "12222", "to", "12469", "14815"],
        ["small.onnx", "ONNX", "0.0100", "0.00990", "to", "0.0101", "0.0120", "0.500", "0.400", "to", "9.00"],
    ]
    (note,) = bench_notes(found)
    assert note.startswith("Tolerance not reached within the time limit: small.onnx.")
    assert bench_notes(Bench((dense,), batch=1, threads=1, device="cpu")) == []
