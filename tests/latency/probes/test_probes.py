"""Every probe runs any model, times it, and leaves model and threads as they were."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.latency import PROBES, LatencySetting, Timed, prepare, probes
from autoprune.latency.probes import find_probe
from autoprune.latency.timing import random_inputs
from tests.latency.nets import TWO_INPUTS, TwoInputs, snapshot, unchanged_since
from tests.own_rows import install_example

TIMER = f"{sys.executable} tests/latency/probes/time_onnx.py {{onnx}}"
SETTINGS = {
    "eager": LatencySetting(batch=2, threads=2),
    "compile": LatencySetting("compile", batch=2, threads=2),
    "onnx": LatencySetting("onnx", batch=2, threads=2),
    "command": LatencySetting("command", batch=2, command=TIMER),
    "own": LatencySetting("tests.latency.probes.test_probes:counting", batch=2, threads=2),
}


def counting(model: nn.Module, inputs: dict[str, object]) -> float:
    """Act as a user's probe: the milliseconds are the batch of the outputs."""
    return float(len(model(**inputs)))


def set_up(name: str) -> LatencySetting:
    if name == "compile" and not any(map(shutil.which, ("g++", "clang++", "c++"))):
        pytest.skip("torch.compile takes a C++ compiler")
    return SETTINGS[name]


def test_every_row_is_tested() -> None:
    assert set(PROBES) <= set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_model_of_several_inputs_is_timed_and_stays_as_it_is(name: str) -> None:
    setting = set_up(name)
    model = TwoInputs().train()
    before, threads = snapshot(model), torch.get_num_threads()
    with prepare(model, TWO_INPUTS, setting) as timed:
        milliseconds = [timed() for _ in range(3)]
    assert all(0 < value < 60_000 for value in milliseconds)
    assert unchanged_since(model, before)
    assert model.training
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    if name == "own":
        assert milliseconds == [2.0, 2.0, 2.0]


@pytest.mark.parametrize("name", ["eager", "onnx"])
def test_more_work_takes_longer(name: str) -> None:
    def best(width: int) -> float:
        model = nn.Sequential(nn.Conv2d(3, width, 3), nn.Conv2d(width, 3, 3))
        with prepare(model, torch.zeros(1, 3, 64, 64), LatencySetting(name)) as timed:
            return shortest(timed)

    # 64 times the MACs: no noise makes the shortest of ten runs of one longer than that of the other.
    assert best(4) < best(256)


def shortest(timed: Timed) -> float:
    return min(timed() for _ in range(10))


def test_names_of_probes() -> None:
    assert find_probe("eager") is PROBES["eager"]
    with pytest.raises(ConfigError, match=r'latency\.probe: unknown name "onxx"\. Did you mean "onnx"'):
        find_probe("onxx")
    with pytest.raises(ConfigError, match=r'latency\.probe: no module "nowhere"'):
        find_probe("nowhere:probe")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"probe": "command"}, r'latency\.command: got probe = "command" and command = None, expected both'),
        ({"command": "time {onnx}"}, r"latency\.command: got probe = .* expected both or neither"),
        (
            {"probe": "onnx", "dtype": "bfloat16"},
            r'latency\.dtype: the runtime of "onnx" has no .* "bfloat16"\. Use "float32" or "float16"',
        ),
        (
            {"probe": "onnx", "channels_last": True},
            r'latency\.channels_last: an ONNX file has no memory layout\. Remove the key or .* than "onnx"',
        ),
        (
            {"probe": "command", "command": "time {onnx}", "channels_last": True},
            r'latency\.channels_last: .* than "command"',
        ),
    ],
)
def test_a_setting_that_does_not_go_with_its_probe_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare(nn.ReLU(), torch.zeros(1, 3), LatencySetting(**values))


def test_a_probe_of_the_users_own_times_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{install_example(probes, tmp_path, monkeypatch)}:time_it"
    with prepare(nn.Linear(3, 4), torch.zeros(1, 3), LatencySetting(name, batch=5)) as timed:
        assert 0 < timed() < 60_000


def test_every_row_is_described() -> None:
    assert all(row.about for row in PROBES.values())


def test_random_inputs_are_the_same_for_a_model_and_its_baseline() -> None:
    one, other = (random_inputs(torch.zeros(1, 3, 8, 8), LatencySetting())[0] for _ in range(2))  # type: ignore[index]  # a tuple
    assert isinstance(one, torch.Tensor)
    assert isinstance(other, torch.Tensor)
    assert torch.equal(one, other)
