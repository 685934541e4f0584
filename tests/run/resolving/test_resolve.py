"""A run is resolved once, whatever it has to measure or to train for that."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.config import load_config
from autoprune.data import load
from autoprune.graph import Prunable
from autoprune.run import Dense, settle, silent
from autoprune.run._resolving import problem as problem
from autoprune.run._resolving.resolve import resolve
from autoprune.run._resolving.spec import RunSpec
from autoprune.training import Task
from autoprune.zoo import load_checkpoint, make_model


def by_parameters(model: nn.Module, inputs: Any) -> float:
    """Take a microsecond a parameter."""
    return sum(parameter.numel() for parameter in model.parameters()) / 1000


def counting(monkeypatch: pytest.MonkeyPatch, name: str) -> list[Any]:
    """Return a list of what a function of `_problem` returns from now on."""
    made: list[Any] = []
    function = getattr(problem, name)

    def count(*arguments: Any, **options: Any) -> Any:
        made.append(function(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(problem, name, count)
    return made


def test_a_model_that_is_trained_first_is_traced_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = tmp_path / "dense.safetensors"
    overrides = [f"model.checkpoint={checkpoint}", f"output.folder={tmp_path}", "train.epochs=1"]
    spec = settle(load_config("digits", [*overrides, "search.setting=float32 contiguous"]))
    traced, built = counting(monkeypatch, "trace"), counting(monkeypatch, "build_space")
    run, _ = resolve(spec, None, silent)
    assert (len(traced), len(built)) == (1, 1)
    assert run.prunable.model is run.dense.model
    trained = make_model("digits_resnet", 10, 1)
    load_checkpoint(trained, checkpoint)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(run.prunable.model.state_dict()[name], tensor), name


@pytest.mark.parametrize("divisor", [{}, {"divisor": 4}])
def test_a_search_under_a_latency_builds_its_space_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, divisor: dict[str, int]
) -> None:
    """Once to refuse what is wrong before anything is measured, and once with what was measured."""
    monkeypatch.setattr("autoprune.run._resolving.latency.measure_table", small_table)
    spec = RunSpec.of(
        {
            "budget": {"latency": "60%"},
            "latency": {"probe": f"{__name__}:by_parameters"},
            "search": {"setting": "float32 contiguous", **divisor},
            "output": {"folder": str(tmp_path)},
        }
    )
    built = counting(monkeypatch, "build_space")
    dense = Dense(make_model("digits_resnet", 10, 1).eval(), load("digits", batch_size=64), Task(), "cpu")
    run, _ = resolve(settle(spec, named=False), dense, silent)
    assert len(built) == 2
    assert run.space is built[1]
    assert run.table is not None
    assert (run.stairs is None) == bool(divisor)


def small_table(prunable: Prunable, setting: object, progress: object) -> Any:
    """Return a table without operators, as if it had been measured."""
    from tests.run.resolving.test_latency import small_table as table_of

    return table_of(prunable.fingerprint)
