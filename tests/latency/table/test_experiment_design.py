"""The design: every operator is seen at each pair of levels, and nothing that is frozen moves."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import autoprune
from autoprune.latency import LatencySetting
from autoprune.latency.table._experiment_design import design_candidates, orthogonal_array, width_levels
from autoprune.latency.table._profiles import make_profiler
from autoprune.zoo import make_model


@pytest.mark.parametrize("levels", [3, 5, 7])
def test_each_pair_of_levels_occurs_once_in_every_two_columns(levels: int) -> None:
    array = orthogonal_array(levels)
    assert array.shape == (levels**2, levels + 1)
    for one, other in itertools.combinations(range(levels + 1), 2):
        assert len({tuple(row) for row in array[:, [one, other]].tolist()}) == levels**2


@pytest.mark.parametrize("width", [2, 5, 16, 64, 1000])
def test_levels_reach_from_small_to_whole(width: int) -> None:
    levels = width_levels(width, 7, np.random.default_rng(0))
    assert levels[-1] == width
    assert levels[0] >= 1
    assert (np.diff(levels) >= 0).all()
    if width >= 64:
        assert any(level % 4 == 0 for level in levels[:-1])
        assert any(level % 4 != 0 for level in levels)


def test_an_operator_is_seen_at_all_pairs_of_its_sizes() -> None:
    torch.manual_seed(0)
    prunable = autoprune.trace(make_model("digits_resnet", 10, 1).eval(), torch.zeros(1, 1, 8, 8))
    operators = make_profiler(prunable, LatencySetting()).found.operators
    widths = design_candidates(prunable, operators, 5)
    assert widths.shape == (35, len(prunable.groups))
    frozen = [place for place, group in enumerate(prunable.groups) if group.frozen is not None]
    assert (widths[:, frozen] == [prunable.groups[place].width for place in frozen]).all()
    seen = 0
    for operator in operators:
        groups = [np.flatnonzero(size.times) for size in operator.sizes]
        if len(groups) == 2 and all(len(each) == 1 for each in groups) and groups[0] != groups[1]:
            levels = [len(set(widths[:25, each[0]].tolist())) for each in groups]
            pairs = {tuple(size.at(widths)[row] for size in operator.sizes) for row in range(25)}
            assert len(pairs) == levels[0] * levels[1]
            seen += 1
    assert seen >= 2


def test_some_candidates_lie_on_the_steps_whole() -> None:
    torch.manual_seed(0)
    prunable = autoprune.trace(make_model("resnet20", 10, 1).eval(), torch.zeros(1, 1, 28, 28))
    stepped = design_candidates(prunable, make_profiler(prunable, LatencySetting()).found.operators, 7)[49:]
    assert len(stepped) == 14
    full = np.array([group.width for group in prunable.groups])
    free = [prunable.position[group.name] for group in prunable.searchable]
    assert (stepped >= 1).all()
    assert (stepped <= full).all()
    assert (stepped[0::2, free] % 8 == 0).all()
    assert (stepped[1::2, free] % 16 == 0).all()
    assert all(len(set(stepped[:, place].tolist())) > 1 for place in free if full[place] > 16)
