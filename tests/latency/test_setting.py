from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from autoprune.errors import ConfigError
from autoprune.latency import LatencySetting


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch": 0}, r"latency\.batch: got 0, expected an integer >= 1"),
        ({"threads": True}, r"latency\.threads: got True, expected an integer >= 1"),
        ({"dtype": "float8"}, r'latency\.dtype: unknown name "float8"\. Did you mean "float32"'),
        ({"device": "gpu"}, r'latency\.device: "gpu" is no device\. Use "cpu", "cuda"'),
        (
            {"probe": "command", "command": "./time.sh"},
            r'latency\.command: "./time.sh" does not contain \{onnx\}\. Write it in place',
        ),
    ],
)
def test_what_no_probe_could_use_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LatencySetting(**values)


def test_a_setting_survives_json_values() -> None:
    setting = LatencySetting("command", batch=8, command="time {onnx}", device="cuda:1")
    assert LatencySetting(**dataclasses.asdict(setting)) == setting
    assert setting.on_cuda
    assert not LatencySetting().on_cuda


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (LatencySetting("onnx"), "onnx, cpu, batch 1, 1 thread, float32"),
        (
            LatencySetting(batch=8, threads=2, dtype="bfloat16", channels_last=True),
            "eager, cpu, batch 8, 2 threads, bfloat16, channels last",
        ),
        # A command has a device, threads and number format of its own.
        (LatencySetting("command", batch=8, threads=2, command="time {onnx}"), "command, batch 8"),
    ],
)
def test_a_setting_in_words(setting: LatencySetting, words: str) -> None:
    assert str(setting) == words
