"""Trainings of two processes compute what one process computes, with and without BatchNorm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.torchrun import torchrun
from tests.training.grouped import NETS, kept, train


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What both processes end with."""
    folder = tmp_path_factory.mktemp("pair")
    run = torchrun("-m", "tests.training.grouped", str(folder), cwd=Path(__file__).parents[2])
    assert run.returncode == 0, run.stderr
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NETS))
def test_two_processes_take_the_steps_of_one(pair: list[dict[str, Any]], name: str) -> None:
    """Equal batches give equal gradients, but for rounding in sums of another order."""
    alone: Any = kept(*train(name))
    first, second = (found[name] for found in pair)
    torch.testing.assert_close(first["norms"], alone["norms"], rtol=2e-3, atol=1e-4)
    torch.testing.assert_close(first["losses"], alone["losses"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=2e-3, atol=2e-4)
    assert first["scores"] == pytest.approx(alone["scores"], abs=0.01)  # one or two of 143 images
    assert {key: second[key] for key in ("losses", "scores", "norms")} == {
        key: first[key] for key in ("losses", "scores", "norms")
    }
    for key, tensor in first["weights"].items():
        assert torch.equal(second["weights"][key], tensor)
