from __future__ import annotations

import json
import os

import onnxruntime  # type: ignore[import-untyped]  # the package ships no types
import pytest
import torch

from autoprune.latency import Fingerprint, LatencySetting, device_fingerprint


def test_the_same_device_gives_the_same_fingerprint() -> None:
    one, other = (device_fingerprint(LatencySetting(batch=batch)) for batch in (1, 32))
    assert one == other
    assert Fingerprint(json.loads(json.dumps(one.facts))) == one
    assert one.facts["torch"] == torch.__version__
    assert one.facts["cores"] == str(os.cpu_count())
    assert len(one.facts["cpu"]) > 2
    assert "onnxruntime" not in one.facts


def test_the_runtime_belongs_to_it() -> None:
    eager, onnx = (device_fingerprint(LatencySetting(probe)) for probe in ("eager", "onnx"))
    assert onnx.facts["onnxruntime"] == onnxruntime.__version__
    assert eager != onnx


def test_differences_are_named() -> None:
    one, other = Fingerprint({"cpu": "A", "cores": "2"}), Fingerprint({"cpu": "A", "cores": "8", "gpu": "B"})
    found = one.differences(other, there="in the table")
    assert found == ["cores: 2 here, 8 in the table", "gpu: none here, B in the table"]
    assert one.differences(one, there="in the table") == []


def test_a_command_times_on_a_device_of_its_own() -> None:
    setting = LatencySetting("command", command="adb shell {onnx}")
    assert device_fingerprint(setting).facts == {"command": "adb shell {onnx}"}


@pytest.mark.gpu
def test_the_gpu_and_its_driver_belong_to_it() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    facts = device_fingerprint(LatencySetting(device="cuda")).facts
    assert facts["gpu"] == torch.cuda.get_device_name()
    assert {"driver", "cuda", "gpu memory"} <= set(facts)
