"""A model of the user's own, as the docstring of `autoprune.zoo` shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import autoprune
from autoprune import zoo
from autoprune.config import load_config
from autoprune.run import inspect
from autoprune.zoo import MODELS, make_model
from tests.own_rows import install_example


def test_it_is_made_and_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"{install_example(zoo, tmp_path, monkeypatch)}:tiny"
    model = make_model(name, classes=10, in_channels=1)
    prunable = autoprune.trace(model, torch.zeros(1, 1, 8, 8))
    plan = autoprune.make_plan(prunable, 0.5)
    small = autoprune.rebuild(prunable, plan)
    assert autoprune.verify(prunable, plan, small) <= 1e-9
    config = {"model": {"factory": name}, "data": {"name": "digits"}, "budget": {"flops": "50%"}}
    assert len(inspect(load_config(config)).groups) == len(prunable.groups)


def test_every_row_is_described() -> None:
    assert all(row.about for row in MODELS.values())
