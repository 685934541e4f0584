"""What a search measures of the runtime before it begins, by a probe of the user's whose answer is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import autoprune
from autoprune.config import load_config
from autoprune.data import load
from autoprune.errors import BudgetError, ConfigError
from autoprune.latency import LatencySetting
from autoprune.pipeline import Dense, inspect, report, resume
from autoprune.pipeline.checks import check_names
from autoprune.pipeline.latency import LatencyTables, latency_setting
from autoprune.pipeline.problem import pose
from autoprune.study import open_study
from autoprune.task import Task
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
    dense = study.chosen["dense_widths"]
    for record in study.records():
        for name, width in record.widths.items():
            assert width % 4 == 0 or width == dense.get(name, width)
    found = report("own", result.storage)
    assert found.stairs is not None
    assert found.stairs.is_file()
    TIMED.clear()
    more = resume(
        "own", result.storage, dense=Dense(model, data, Task(), "cpu"), overrides=["search.trials=4"]
    )
    assert len(more.summary.records) == 4
    assert not TIMED


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
        (["search.divisor=automatic"], r"search\.divisor: got 'automatic'"),
    ],
)
def test_a_runtime_that_cannot_be_used_is_refused_before_anything_is_loaded(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_names(load_config("digits", overrides))


def read(*overrides: str) -> LatencySetting:
    return latency_setting(load_config("digits", overrides).latency)


def test_the_section_becomes_a_setting() -> None:
    assert read() == LatencySetting()
    assert read(
        "latency.probe=onnx", "latency.batch=32", "latency.threads=2", "latency.dtype=float16"
    ) == LatencySetting("onnx", batch=32, threads=2, dtype="float16")
    command = "adb push {onnx} /tmp/m.onnx >&2 && adb shell time /tmp/m.onnx"
    assert read("latency.probe=command", f"latency.command={command}").command == command
    assert (
        read("latency.probe=tests.latency.test_stairs:stepped").probe == "tests.latency.test_stairs:stepped"
    )


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("latency.probe=onxx", r'latency\.probe: unknown name "onxx"; known: .* Did you mean "onnx"'),
        ("latency.probe=command", r"latency\.command: .* go together"),
        ("latency.device=gpu", r'latency\.device: "gpu" is no device'),
        ("latency.device=cuda:77", r'latency\.device: "cuda:77" asked, but torch sees'),
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
        ("latency.prob=onnx", r'unknown key latency\.prob\. Did you mean "probe"'),
        (
            "search.divisor=often",
            r"search\.divisor: got 'often', expected an integer >= 1 or one of \"auto\"",
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
        ({"latency": "10 s"}, r"budget\.latency: 10 s is .*less than the dense model's", 1),
        ({"latency": "60%", "flops": "90 T"}, r"budget\.flops: 90 T is .*less than the dense model's", 0),
        ({"latency": "60%", "params": "3"}, r"budget\.params", 0),
    ],
)
def test_what_cannot_be_asked_is_refused_before_a_table_is_measured(
    budget: dict[str, str], message: str, models: int
) -> None:
    torch.manual_seed(0)
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits"), Task(), "cpu")
    config = load_config({"budget": budget, "latency": {"probe": f"{__name__}:by_parameters"}})
    SIZES.clear()
    with pytest.raises(BudgetError, match=message):
        pose(dense, config, LatencyTables(config))
    assert len(set(SIZES)) == models
