"""Steps, floors and ties of single variables."""

from __future__ import annotations

import time

import numpy as np
import pytest

from autoprune.errors import ConfigError
from autoprune.space import Budget, Override, SpaceSpec, Tie, build_space
from autoprune.space._levels import allowed_widths, make_levels, relaxed_step, unit_step
from tests.space.costs import chain, dense_macs, group


@pytest.mark.parametrize(
    ("positions", "divisor", "step"),
    [((1, 1), 8, 8), ((1, 49), 8, 8), ((4,), 8, 2), ((1, 4), 8, 8), ((6, 4), 12, 6), ((16,), 8, 1)],
)
def test_positions_on_an_axis_count_for_the_divisor(
    positions: tuple[int, ...], divisor: int, step: int
) -> None:
    narrowed = group("a", 64, positions)
    assert unit_step(narrowed, divisor) == step
    smallest = [w for w in range(1, 65) if all(w * m % divisor == 0 for m in positions)]
    assert smallest[0] == step


@pytest.mark.parametrize(
    ("width", "step"), [(64, 8), (16, 8), (15, 4), (12, 4), (8, 4), (4, 2), (3, 1), (1, 1)]
)
def test_small_groups_relax_the_divisor(width: int, step: int) -> None:
    assert relaxed_step(group("a", width), 8) == step


def test_relaxed_groups_are_recorded() -> None:
    net = chain([64, 12])
    space = build_space(*net, Budget(macs=dense_macs(net) // 2), SpaceSpec(divisor=8))
    assert space.relaxed == {"conv1": 4}


def test_allowed_widths_hold_the_floor_the_ratios_and_the_full_width() -> None:
    assert allowed_widths(16, step=1, low=0.1, high=1, floor=1).tolist() == list(range(2, 17))
    assert allowed_widths(20, step=8, low=0.1, high=1, floor=1).tolist() == [8, 16, 20]
    assert allowed_widths(64, step=8, low=0.3, high=0.7, floor=1).tolist() == [24, 32, 40]
    assert allowed_widths(64, step=8, low=0.1, high=1, floor=50).tolist() == [56, 64]
    assert allowed_widths(16, step=8, low=0.6, high=0.7, floor=1).tolist() == [16]


def test_tied_groups_follow_one_ratio_each_at_its_nearest_width() -> None:
    allowed = [np.arange(4, 17, 4), np.arange(8, 65, 8)]
    levels = make_levels("tie", [0, 1], [16, 64], allowed)
    ratios = np.linspace(0.05, 1.0, 2000)
    widths = levels.widths[levels.of_ratio(ratios)]
    for column, (full, steps) in enumerate(zip((16, 64), allowed, strict=True)):
        nearest = np.abs(steps[None] - ratios[:, None] * full).min(axis=1)
        np.testing.assert_allclose(np.abs(widths[:, column] - ratios * full), nearest, atol=1e-9)
    np.testing.assert_array_equal(levels.of_ratio(levels.ratios), np.arange(len(levels.ratios)))


def test_ties_overrides_and_skips_follow_their_patterns() -> None:
    net = chain([16, 16, 32, 32])
    spec = SpaceSpec(
        ties=(Tie("front", ("conv0", "conv1")),),
        skip=("conv3",),
        overrides=(Override(("conv2",), low=0.5, divisor=8),),
    )
    space = build_space(*net, Budget(macs=int(0.6 * dense_macs(net))), spec)
    assert [variable.groups for variable in space.variables] == [("conv0", "conv1"), ("conv2",)]
    widths = space.decode(np.random.default_rng(0).uniform(0.1, 1, (50, 2)))
    assert (widths[:, 0] == widths[:, 1]).all()
    assert (widths[:, 2] % 8 == 0).all()
    assert (widths[:, 2] >= 16).all()
    assert (widths[:, 3] == 32).all()


def test_patterns_without_a_group_and_double_ties_are_refused() -> None:
    net = chain([16, 16])
    budget = Budget(macs=dense_macs(net) // 2)
    with pytest.raises(ConfigError, match=r'conv9 matches no group. Did you mean "conv1"'):
        build_space(*net, budget, SpaceSpec(skip=("conv9",)))
    with pytest.raises(ConfigError, match="conv0 lies in a and b"):
        build_space(*net, budget, SpaceSpec(ties=(Tie("a", ("conv*",)), Tie("b", ("conv0",)))))


def test_a_divisor_of_a_million_is_relaxed_at_once() -> None:
    begun = time.process_time()
    steps = [relaxed_step(group("a", width), 1_000_000) for width in range(8, 108)]
    assert time.process_time() - begun < 5  # a search through all smaller numbers takes minutes
    assert steps[:3] == [4, 4, 5]
    assert steps[-1] == 50
