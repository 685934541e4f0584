"""The contest of experiments/allocation: a budget is filled as measured, and tables of recorded rows."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from autoprune.errors import BudgetError
from autoprune.latency.table import measure_table
from experiments.common import append_row, rows_of

pytest.importorskip("torch_pruning")
contest: Any = pytest.importorskip("experiments.allocation.contest")
arms: Any = pytest.importorskip("experiments.allocation.contest_arms")
setups: Any = pytest.importorskip("experiments.allocation.contest_setups")


def in_blocks_of_4(model: nn.Module, inputs: Any) -> float:
    """Take as long as a runtime would that is slow at channels that are no multiple of four."""
    widths = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    return float(5 + sum(-(-width // 4) * (1.0 if width % 4 == 0 else 1.5) for width in widths))


@pytest.mark.parametrize(
    "usage",
    [lambda size: size, lambda size: 1.4 * size, lambda size: 0.5 * size + 0.2, lambda size: 3 * size**2],
    ids=["as predicted", "slower", "with a constant", "curved"],
)
def test_a_budget_is_filled_however_the_prediction_errs(usage: Callable[[float], float]) -> None:
    made: list[float] = []

    def make(size: float) -> float:
        made.append(size)
        return size

    size = arms.filled(make, usage)
    assert arms.FULL <= usage(size) <= 1
    assert len(made) <= arms.ATTEMPTS


def test_between_the_stairs_of_a_runtime_the_fullest_candidate_within_the_budget_counts() -> None:
    usage = {0.0: 0.3, 0.4: 0.7, 0.8: 1.1}
    chosen = arms.filled(lambda size: max(step for step in usage if step <= size), usage.__getitem__)
    assert chosen == 0.4
    with pytest.raises(BudgetError, match=f"none of {arms.ATTEMPTS} candidates is within the budget"):
        arms.filled(lambda size: size, lambda size: 1.01 + size)


def row(arm: str, seed: int, test: float, **more: object) -> Mapping[str, object]:
    """Return a row of the contest under a latency."""
    shares = {"macs": 0.3, "params": 0.2, "peak_memory_bytes": 0.5}
    scores = {"before": 0.1, "val": test, "test": test, "rate": 0.05}
    times: dict[str, object] = {"search_s": 0, "finetune_s": 50, "widths": "8 8", "race_s": ""}
    latency = {"latency": 0.44, "latency_low": 0.43, "latency_high": 0.45}
    key = {"setup": "mobilenet-latency-45", "arm": arm, "seed": seed}
    return {**key, **shares, **scores, **times, **latency, **more}


def test_tables_have_the_measured_latency_and_the_compute_of_a_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "contest.csv"
    monkeypatch.setattr(contest, "RESULTS", results)
    for seed in (0, 1):
        append_row(results, row("uniform", seed, 0.7), quiet=True)
        append_row(results, row("uniform-snapped", seed, 0.72, latency=0.46 - 0.02 * seed), quiet=True)
        searched = {"search_s": 60 + 20 * seed, "race_s": 40, "latency_high": 0.455}
        append_row(results, row("search", seed, 0.75 + 0.01 * seed, **searched), quiet=True)
    with results.open("a") as file:  # rows of before have neither a race nor a latency
        file.write("pairs-params,uniform,0,0.05,0.05,0.05,0.1,0.7,0.7,0.05,0,71,3 3\n")
    head, _, *lines = [line for line in contest.table("mobilenet-latency-45") if line]
    assert head.endswith("| latency % | test | less uniform | less uniform-snapped | less search |")
    assert [line.split(" | ")[0] for line in lines] == ["| uniform", "| uniform-snapped", "| search"]
    assert "| 45.0 [43.0, 45.0] | 72.00 |" in lines[1]
    assert "| 44.0 [43.0, 45.5] | 75.50 | +5.50 [" in lines[2]
    assert "| uniform | 1 | 5.0 | 5.0 | 5.0 | 70.00 |" in "\n".join(contest.table("pairs-params"))
    *_, times = [line for line in contest.compute(list(setups.SETUPS)) if line]
    assert times == "| mobilenet-latency-45 | search | 2 | 70 | 40 | 50 | 2.2 |"


def test_snapped_widths_and_kirigami_compete_under_their_budgets_alone() -> None:
    fitting = {setup for setup in setups.SETUPS if arms.fits(setup, arms.SNAPPED)}
    assert fitting == {"mobilenet-latency-45", "mobilenet-latency-30"}
    assert {setup for setup in setups.SETUPS if arms.fits(setup, arms.KIRIGAMI)} == {
        "pairs-params",
        "few-params",
    }
    without = {setup for setup in setups.SETUPS if not arms.fits(setup, arms.SEARCH_DEPTH)}
    assert {setup.partition("-")[0] for setup in without} == {"pairs", "few"}


@pytest.mark.slow
def test_all_arms_under_a_latency_are_measured_and_a_second_run_adds_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runtime is a function, for which multiples of four are fast."""
    config = tmp_path / "tiny.toml"
    config.write_text(
        f"""
        model = {{ name = "digits_resnet", checkpoint = "{tmp_path}/dense.safetensors" }}
        data = {{ name = "digits", batch_size = 64, val_fraction = 0.2 }}
        train = {{ epochs = 3 }}
        finetune = {{ epochs = 1 }}
        score = {{ rungs = ["repair", "2 steps"] }}
        search = {{ trials = 6, setting = "float32 channels_last" }}
        latency = {{ probe = "{__name__}:in_blocks_of_4", table = "{tmp_path}/table.json" }}
        """
    )
    monkeypatch.setitem(setups.SETUPS, "tiny", setups.Setup(str(config), "latency=55%"))
    monkeypatch.setattr(contest, "RESULTS", tmp_path / "contest.csv")
    for module in (contest, arms):
        monkeypatch.setattr(module, "RUNS", tmp_path)
    one_round = functools.partial(measure_table, limit_seconds=0.0)
    monkeypatch.setattr("autoprune.run._resolving.latency.measure_table", one_round)
    names = ["uniform", "uniform-snapped", "taylor", "tp-l1", "search"]
    monkeypatch.setattr("sys.argv", ["contest", "--setups", "tiny", "--seeds", "0", "--arms", *names])
    contest.main()
    contest.main()
    rows = {row["arm"]: row for row in rows_of(contest.RESULTS)}
    assert list(rows) == sorted(names, key=names.index)
    assert len(rows_of(contest.RESULTS)) == len(names)
    assert all(0.3 < float(row["latency"]) <= 0.55 for row in rows.values())
    assert float(rows["uniform-snapped"]["macs"]) >= float(rows["uniform"]["macs"])
    snapped = [int(width) for width in rows["taylor"]["widths"].split()]
    assert all(width % 4 == 0 for width in snapped)
    assert rows["search"]["race_s"] != ""
    assert (tmp_path / "table.stairs.json").exists()
