"""The facts that a search stores once, at its start."""

from __future__ import annotations

import platform

import pytest

from autoprune.run._trials.new_study import environment


@pytest.mark.parametrize("device", ["cpu", "cpu:0", "mps"])
def test_every_device_has_an_environment(device: str) -> None:
    found = environment(device)
    assert found["python"] == platform.python_version()
    assert found.keys() >= {"autoprune", "optuna", "numpy", "torch", "system"}
