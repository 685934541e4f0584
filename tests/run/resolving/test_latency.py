"""Measurements of the runtime before a search begins, by a probe of the user's own with known times."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.data import load
from autoprune.errors import BudgetError, ConfigError, LatencyError
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting, device_fingerprint
from autoprune.latency.table import LatencyTable, narrowed
from autoprune.latency.table._latency_table import Calibration
from autoprune.run import Dense, inspect, report, resume, search, settle
from autoprune.run._checks.checks import check_names, check_paths
from autoprune.run._resolving.latency import find_table, measure_runtime, settle_divisor
from autoprune.run._resolving.problem import build_problem, trace_dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.study import open_study
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.support.threads import usable_cores
from autoprune.training import Task
from autoprune.zoo import make_model

CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "50%"},
    "search": {
        "trials": 3,
        "study": "own",
        "sampler": "random",
        "setting": "float32 contiguous",
        "divisor": "auto",
        "warm_starts": [],
    },
    "latency": {"probe": f"{__name__}:in_blocks_of_4"},
    "score": {"rungs": ["calibrate"], "calibration_batches": 1},
    "race": {"entrants": 1},
}


TIMED: list[nn.Module] = []

SIZES: list[int] = []


def in_blocks_of_4(model: nn.Module, inputs: Any) -> float:
    """Take as long as a runtime would that works on four channels at a time."""
    TIMED.append(model)
    widths = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    return float(1 + sum(-(-width // 4) for width in widths))


def test_a_divisor_that_is_auto_is_measured_kept_and_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model, data = make_model("digits_resnet", 10, 1), load("digits", batch_size=64, val_fraction=0.2)
    result = autoprune.search(model, data, CONFIG)
    study = open_study(result.storage, "own")
    assert study.config["search"]["divisor"] == 4
    dense = study.facts.dense_widths
    for record in study.records():
        for name, width in record.widths.items():
            assert width % 4 == 0 or width == dense.get(name, width)
    found = report("own", result.storage)
    assert found.stairs is not None
    assert found.stairs.is_file()
    TIMED.clear()
    more = resume("own", result.storage, model=model, data=data, overrides=["search.trials=4"])
    assert len(more.summary.records) == 4
    assert not TIMED


class InBlocksOf4:
    """Knows the times of the probe below, and the lowest that never fall if a width grows."""

    def __init__(self, prunable: Prunable) -> None:
        full = np.array([group.width for group in prunable.groups])
        self.dense_ms = slow_between_blocks(prunable.model, None)
        self.layers = np.array(
            [
                0 if group.frozen else self.dense_ms - slow_between_blocks(narrowed(prunable, fewer), None)
                for group, fewer in zip(prunable.groups, full - 4 * np.eye(len(full), dtype=int), strict=True)
            ]
        )
        self.constant = self.dense_ms - float((full // 4) @ self.layers)

    def __call__(self, widths: IntArray) -> FloatArray:
        return np.asarray(self.constant + -(-widths // 4) @ self.layers)

    def expected(self, widths: IntArray) -> FloatArray:
        blocks = -(-widths // 4) * np.where(widths % 4 == 0, 1.0, 1.2)
        return np.asarray(self.constant + blocks @ self.layers)


def slow_between_blocks(model: nn.Module, inputs: Any) -> float:
    """Take a fifth longer for a layer whose channels are no multiple of four."""
    widths = [module.out_channels for module in model.modules() if isinstance(module, nn.Conv2d)]
    return float(1 + sum(-(-width // 4) * (1.0 if width % 4 == 0 else 1.2) for width in widths))


def test_an_open_divisor_is_measured_under_a_latency_limit_so_that_proposals_keep_it() -> None:
    """Off the steps the space cannot predict a candidate: at divisor 1 it is above the limit."""
    torch.manual_seed(0)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits"), Task(), "cpu")
    probe = f"{__name__}:slow_between_blocks"
    config = RunSpec.of({"budget": {"latency": "60%"}, "latency": {"probe": probe}})
    prunable = trace_dense(dense, config)
    said: list[str] = []
    settled, stairs = settle_divisor(config, prunable, lambda event: said.append(str(event)))
    assert stairs is not None
    assert settled.search.divisor == 4
    assert "search.divisor is not given: measuring" in said[0]
    ratios = np.random.default_rng(0).uniform(0.1, 1.0, (30, 6))
    over = {}
    for divisor in (4, 1):
        problem = build_problem(prunable, settled.with_search(divisor=divisor), InBlocksOf4(prunable))
        widths = problem.space.decode(ratios)
        exact = [slow_between_blocks(narrowed(problem.prunable, row), None) for row in widths]
        np.testing.assert_allclose(np.asarray(problem.cost(widths).latency_ms), exact)
        over[divisor] = (np.array(exact) > problem.budget.limits["latency_ms"]).mean()
    assert over[4] == 0
    assert over[1] > 0.9


def test_the_divisor_that_a_file_gives_stays(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    for text, measured in (("divisor = 1", False), ("low = 0.2", True)):
        space.write_text(text)
        spec = RunSpec.of({"budget": {"latency": "60%"}, "search": {"space": str(space)}})
        assert spec.measures_divisor == measured
    assert not RunSpec.of({"budget": {"flops": "60%"}}).measures_divisor
    assert RunSpec.of({"search": {"objectives": ["score", "latency"]}}).measures_divisor
    assert not RunSpec.of({"budget": {"latency": "60%"}, "search": {"divisor": 1}}).measures_divisor


def test_inspect_measures_the_divisor_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config("digits", ["search.divisor=auto", f"latency.probe={__name__}:in_blocks_of_4"])
    said: list[str] = []
    inspection = inspect(config, watch=lambda event: said.append(str(event)))
    assert any("multiples of 4" in text for text in said)
    assert int(inspection.smallest.macs) > int(inspect(load_config("digits")).smallest.macs)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["search.divisor=auto", "latency.probe=onix"], r'onix.*Did you mean "onnx"'),
        (["budget.latency=60%", "latency.probe=command"], r"latency\.command: "),
        (["latency.probe=onix"], r'onix.*Did you mean "onnx"'),
        (["search.divisor=automatic"], r"search\.divisor: got 'automatic'"),
        (
            [f"latency.threads={usable_cores() + 1}"],
            r"latency\.threads: got \d+, expected at most \d+, the CPU",
        ),
    ],
)
def test_a_runtime_that_cannot_be_used_is_refused_before_anything_is_loaded(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_names(RunSpec.of(load_config("digits", overrides)))


def read(*overrides: str) -> LatencySetting:
    return RunSpec.of(load_config("digits", overrides)).usable_runtime


def test_the_section_becomes_a_setting() -> None:
    cores = usable_cores()
    assert read() == LatencySetting()
    assert read(
        "latency.probe=onnx", "latency.batch=32", f"latency.threads={cores}", "latency.dtype=float16"
    ) == LatencySetting("onnx", batch=32, threads=cores, dtype="float16")
    command = "adb push {onnx} /tmp/m.onnx >&2 && adb shell time /tmp/m.onnx"
    on_phone = ("latency.probe=command", f"latency.command={command}", f"latency.threads={cores + 1}")
    assert read(*on_phone).command == command  # what it times has cores of its own
    assert (
        read("latency.probe=tests.latency.test_stairs:stepped").probe == "tests.latency.test_stairs:stepped"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("latency.probe=onxx", r'latency\.probe: unknown name "onxx"\. Did you mean "onnx"'),
        ("latency.probe=command", r"latency\.command: got probe = .* expected both or neither"),
        ("latency.device=gpu", r'latency\.device: "gpu" is no device'),
        ("latency.device=cuda:77", r'latency\.device: got "cuda:77", but torch sees'),
    ],
)
def test_what_cannot_be_measured_here_is_refused(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read(override)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("latency.batch=0", r"latency\.batch: got 0, expected an integer >= 1"),
        ("latency.dtype=float64", r'latency\.dtype: got \'float64\', expected one of "float32", "bfloat16"'),
        ("latency.tolerance=2", r"latency\.tolerance: got 2, expected a number > 0 and < 1"),
        ("latency.limit_seconds=0", r"latency\.limit_seconds: got 0, expected a number > 0"),
        ("latency.prob=onnx", r'\[latency\]: unknown key "prob"\. Did you mean "probe"'),
        (
            "search.divisor=often",
            r"search\.divisor: got 'often', expected an integer >= 1 and <= 1,000,000 or one of \"auto\"",
        ),
    ],
)
def test_the_config_is_checked(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config("digits", [override])


def by_parameters(model: nn.Module, inputs: Any) -> float:
    """Take a microsecond a parameter."""
    parameters = sum(parameter.numel() for parameter in model.parameters())
    SIZES.append(parameters)
    return parameters / 1000


@pytest.mark.parametrize(
    ("budget", "message", "models"),
    [
        (
            {"latency": "10 s"},
            r"budget\.latency: 10 s is not below the dense model's .*by_parameters, cpu, batch 1",
            1,
        ),
        ({"latency": "60%", "flops": "90 T"}, r"budget\.flops: 90 T is .*less than the dense model's", 0),
        ({"latency": "60%", "params": "3"}, r"budget\.params", 0),
    ],
)
def test_an_impossible_request_is_refused_before_a_table_is_measured(
    budget: dict[str, str], message: str, models: int
) -> None:
    torch.manual_seed(0)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits"), Task(), "cpu")
    spec = RunSpec.of(
        {"budget": budget, "latency": {"probe": f"{__name__}:by_parameters"}, "search": {"divisor": 1}}
    )
    SIZES.clear()
    with pytest.raises(BudgetError, match=message):
        measure_runtime(trace_dense(dense, spec), spec)
    assert len(set(SIZES)) == models


def small_table(model: str) -> LatencyTable:
    """Return a table without operators: every candidate takes 2 ms of the dense model's 4."""
    setting = LatencySetting(f"{__name__}:by_parameters")
    calibration = Calibration(constant_ms=2.0, error=0.01, candidates=64, seconds=1.0)
    return LatencyTable(setting, device_fingerprint(setting), model, 7, (), {}, calibration, dense_ms=4.0)


@pytest.mark.parametrize(("latency", "timed"), [("60%", 0), ("99.9 %", 0), ("10 s", 1)])
def test_only_what_the_dense_model_may_keep_to_is_timed_before_its_table(
    latency: str, timed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes more than a share of its own time, whatever that is."""
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits"), Task(), "cpu")
    config = RunSpec.of({"budget": {"latency": latency}, "latency": {"probe": f"{__name__}:by_parameters"}})
    monkeypatch.setattr(
        "autoprune.run._resolving.latency.measure_table",
        lambda prunable, setting, progress: small_table(prunable.fingerprint),
    )
    SIZES.clear()
    prunable = trace_dense(dense, config)
    if timed:
        with pytest.raises(BudgetError, match=rf"budget\.latency: {latency} is not below"):
            find_table(prunable, config)
    else:
        assert find_table(prunable, config).dense_ms == 4.0
    assert len(set(SIZES)) == timed


def test_what_was_measured_is_found_in_the_output_folder_if_it_belongs_here(tmp_path: Path) -> None:
    torch.manual_seed(0)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits"), Task(), "cpu")
    config = RunSpec.of(
        {
            "budget": {"latency": "10 s"},
            "latency": {"probe": f"{__name__}:by_parameters"},
            "output": {"folder": str(tmp_path)},
        }
    )
    prunable = trace_dense(dense, config)
    path = tmp_path / f"latency-{__name__}-by_parameters-1.json"
    SIZES.clear()
    small_table(prunable.fingerprint).save(path)
    assert find_table(prunable, config).dense_ms == 4.0
    assert not SIZES
    small_table("another model").save(path)
    with pytest.raises(BudgetError, match=r"budget\.latency"):
        find_table(prunable, config)
    assert SIZES
    named = dataclasses.replace(config, latency=dataclasses.replace(config.latency, table=str(path)))
    with pytest.raises(LatencyError, match="measured for another model"):
        find_table(prunable, named)


def test_a_search_continues_on_a_machine_without_the_probe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the table that the study keeps. The best are timed later, on the device of the table."""
    torch.manual_seed(0)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits", batch_size=64), Task(), "cpu")
    values = {
        **CONFIG,
        "budget": {"latency": "60%"},
        "search": {**CONFIG["search"], "divisor": 4, "trials": 2},
        "latency": {"probe": f"{__name__}:by_parameters", "limit_seconds": 0.01},
        "output": {"folder": str(tmp_path / "out")},
        "data": {"checkpoint_saw_validation": True},
    }
    values["search"]["storage"] = f"{tmp_path}/own.db"
    config = RunSpec.of(values)
    prunable = trace_dense(dense, config)
    small_table(prunable.fingerprint).save(tmp_path / "out" / f"latency-{__name__}-by_parameters-1.json")
    result = search(dense.model, dense.data, config)
    assert result.best.measured is not None
    monkeypatch.delattr(f"{__name__}.by_parameters")
    said: list[str] = []
    again = resume(
        "own",
        result.storage,
        model=dense.model,
        data=dense.data,
        overrides=["search.trials=4"],
        watch=lambda event: said.append(str(event)),
    )
    assert [record.state for record in again.summary.records] == ["complete"] * 4
    assert any("the best trials are not timed here: latency.probe: " in text for text in said)


@pytest.mark.parametrize(
    ("outputs", "space", "message"),
    [
        (5, "low = 0.2", r"it has 5 outputs for data of 10 classes"),
        (10, 'skip = ["layer9.*"]', r"space\.skip: layer9\.\* matches no group"),
    ],
)
def test_a_mistake_is_reported_before_anything_is_timed(
    outputs: int, space: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text(space)
    search = {**CONFIG["search"], "space": "space.toml"}
    TIMED.clear()
    with pytest.raises(ConfigError, match=message):
        autoprune.search(
            make_model("digits_resnet", outputs, 1), load("digits"), {**CONFIG, "search": search}
        )
    assert not TIMED


def test_the_file_of_the_table_is_absolute_and_can_be_written(tmp_path: Path) -> None:
    config = settle(load_config("digits", ["latency.table='~/a.json'", f"output.folder='{tmp_path}'"]))
    assert config.latency.table == str(Path("~/a.json").expanduser())
    config = settle(
        load_config("digits", ["latency.table=/proc/nowhere/a.json", f"output.folder='{tmp_path}'"])
    )
    with pytest.raises(ConfigError, match=r"latency\.table: /proc/nowhere cannot be written"):
        check_paths(config)
