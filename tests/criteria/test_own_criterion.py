"""Criteria of the user's own, as the docstring of `autoprune.criteria` shows them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import autoprune
from autoprune import criteria
from autoprune.criteria import find_criterion, importance
from autoprune.errors import ConfigError, PlanError
from autoprune.graph import Prunable
from tests.own_rows import install_example, tiny_search


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    return install_example(criteria, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def prunable() -> Prunable:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    return autoprune.trace(net, torch.zeros(1, 1, 8, 8))


def test_a_plan_keeps_the_channels_that_it_ranks_first(module: str, prunable: Prunable) -> None:
    (group,) = prunable.searchable
    spreads = prunable.model.get_parameter("0.weight").detach().double().flatten(1).std(dim=1)
    plan = autoprune.make_plan(prunable, {group.name: 3}, criterion=f"{module}:spread")
    assert set(plan[group.name].tolist()) == set(spreads.argsort(descending=True)[:3].tolist())


def test_a_spec_declares_that_it_needs_images(module: str, prunable: Prunable) -> None:
    name = f"{module}:by_images"
    with pytest.raises(PlanError, match=r'criterion ".*:by_images": needs images\. Give make_plan'):
        importance(prunable, name)
    ranked = importance(prunable, name, [(torch.full((2, 1, 8, 8), 3.0), torch.zeros(2))])
    np.testing.assert_array_equal(ranked[prunable.searchable[0].name], [3.0] * 6)


def test_a_config_names_it(module: str) -> None:
    result = tiny_search(criterion=f"{module}:spread")
    assert [record.state for record in result.summary.records] == ["complete"] * 2


def test_errors_are_one_line_that_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prunable: Prunable
) -> None:
    (tmp_path / "broken_criteria.py").write_text("def rank(given): raise ValueError('no idea')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ConfigError, match=r'criterion: "broken_criteria:rank" failed: ValueError: no idea'):
        importance(prunable, "broken_criteria:rank")
    with pytest.raises(ConfigError, match=r'search\.criterion: unknown name "lampp"\. Did you mean'):
        find_criterion("lampp")
    with pytest.raises(PlanError, match=r'criterion: unknown name "lampp"\. Did you mean'):
        importance(prunable, "lampp")
