"""The script for a GPU: its steps run on a CPU, and a step that fails or takes too long is recorded."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from experiments.common import rows_of
from experiments.gpu import run
from experiments.gpu.common import Bench
from experiments.gpu.run import main, run_step


def python(code: str) -> list[str]:
    return [sys.executable, "-S", "-c", code]


@pytest.mark.parametrize(
    ("code", "seconds", "outcome", "reason"),
    [
        ("print('rows')", 20, "done", ""),
        ("print('rows'); raise SystemExit('no device')", 20, "failed", "exit code 1: no device"),
        (
            "import time; print('rows', flush=True); time.sleep(60)",
            run.LEAST_S,
            "out of time",
            "after 5 s: rows",
        ),
        ("", 1, "not begun", "no time was left"),
    ],
)
def test_each_end_of_a_step_is_recorded(
    code: str, seconds: float, outcome: str, reason: str, tmp_path: Path
) -> None:
    row = run_step(python(code), tmp_path / "step.log", seconds)
    assert (row["outcome"], row["reason"]) == (outcome, reason)


def test_a_measurement_that_fails_is_a_row_with_its_reason(tmp_path: Path) -> None:
    bench = Bench("table", "cpu", True, tmp_path, 10, time.monotonic())

    def work() -> dict[str, object]:
        raise RuntimeError("CUDA out of memory")

    bench.attempt({"net": "large"}, ("ms", "failure"), work)
    bench.attempt({"net": "small"}, ("ms", "failure"), lambda: {"ms": 2})
    assert rows_of(tmp_path / "table.csv") == [
        {"net": "large", "ms": "", "failure": "RuntimeError: CUDA out of memory"},
        {"net": "small", "ms": "2", "failure": ""},
    ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_steps_run_on_a_cpu_with_tiny_nets(tmp_path: Path) -> None:
    main(["--device", "cpu", "--tiny", "--output", str(tmp_path)])
    steps = rows_of(tmp_path / "steps.csv")
    assert [(row["step"], row["outcome"], row["reason"]) for row in steps] == [
        (step, "done", "") for step in run.STEPS
    ]
    (repaired,) = rows_of(tmp_path / "repair.csv")
    assert repaired["failure"] == ""
    assert float(repaired["closed_difference"]) < 1e-3
    assert float(repaired["sequential_difference"]) < 1e-3
    for name in ("training", "latency", "graphs", "trials"):
        rows = rows_of(tmp_path / f"{name}.csv")
        assert {row["failure"] for row in rows} <= {"", "RuntimeError: CUDA graphs need a CUDA device"}
        assert any(row["failure"] == "" for row in rows)
    assert [row["outcome"] for row in rows_of(tmp_path / "search.csv")] == ["complete"] * 2
    assert {row["outcome"] for row in rows_of(tmp_path / "marked.csv")} <= {"passed", "skipped"}
    assert (tmp_path / "search.json").is_file()
