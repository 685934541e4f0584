"""The commands of experiments/scale on recorded rows, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from experiments.common import append_row, rows_of
from experiments.scale import faults, simulate


def test_a_measured_cost_changes_all_simulated_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulate, "COSTS", tmp_path / "costs.csv")
    monkeypatch.setattr(simulate, "SIMULATED", tmp_path / "simulated.csv")
    monkeypatch.setattr(simulate, "PROCESSES", (1, 2))
    found = []
    for search_s in (0.1, 5.0):
        simulate.COSTS.unlink(missing_ok=True)
        for number, ended in simulate.CASES:
            cost = {"open": number, "ended": ended, "search_s": search_s, "server_s": 0.1, "transactions": 50}
            append_row(simulate.COSTS, cost)
        simulate.main()
        found.append([int(row["trials_per_hour"]) for row in rows_of(simulate.SIMULATED)])
    first, second = found
    assert len(first) == len(second) == 2 * len(simulate.PACES)
    assert all(slow < fast for fast, slow in zip(first, second, strict=True))


def test_each_run_of_a_fault_has_a_row_of_its_own() -> None:
    keys = [(row["case"], int(row["run"])) for row in rows_of(faults.RESULTS)]
    assert len(set(keys)) == len(keys)
    runs = [(name, run + 1) for name in faults.CASES for run in range(faults.RUNS.get(name, 1))]
    assert sorted(keys + faults.missing(faults.CASES)) == sorted(runs)
