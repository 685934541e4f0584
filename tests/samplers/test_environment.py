"""The walk: the budget stays reachable for any actions, and a replay gets the same states."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.samplers import SamplerContext
from autoprune.samplers._environment import EVEN, STATE, Walk
from autoprune.samplers._past_trials import places
from autoprune.space import Budget, SpaceSpec, Tie, build_space
from tests.space.costs import chain, dense_macs


def context(limit: float = 0.5, params: int | None = None, scale: int = 1) -> SamplerContext:
    net = chain([scale * width for width in (24, 32, 24, 32, 24)], maps=[64, 64, 16, 16, 16])
    budget = Budget(macs=None if params else int(limit * dense_macs(net)), params=params)
    space = build_space(*net, budget, SpaceSpec(ties=(Tie("pair", ("conv1", "conv3")),)))
    shapes = {f"conv{i}.weight": (8, 10 + i, 3, 3) for i in range(4)}
    return SamplerContext(seed=0, search_seed=0, trials=20, space=space, shapes=shapes)


@pytest.mark.parametrize("limit", [0.15, 0.5, 0.9])
@pytest.mark.parametrize("asked", [0.0, 0.3, 1.0])
def test_actions_are_bounded_so_that_the_budget_is_met(limit: float, asked: float) -> None:
    told = context(limit)
    levels, states = Walk(told).go(lambda state: asked)
    usage = told.space.ladder.usage(levels[None])[0]
    assert 0.9 < usage <= 1.0  # the last variable's step is what may be missing to the window
    assert states.shape == (4, STATE)
    assert ((states >= 0) & (states <= 1)).all()


def places_of(told: SamplerContext, levels: np.ndarray) -> np.ndarray:
    return places(told, told.space.ladder.ratios(levels[None])[0])


@pytest.mark.parametrize("limit", [0.15, 0.5, 0.9])
def test_even_actions_give_all_variables_one_place(limit: float) -> None:
    told = context(limit, scale=8)
    levels, states = Walk(told).go(lambda state: EVEN)
    assert np.ptp(places_of(told, levels)) < 5 / 192  # a level is 1 / 192; the last takes what is left
    np.testing.assert_allclose(states[:, -1], EVEN, atol=0.05)


@pytest.mark.parametrize(("asked", "sign"), [(0.9, 1), (0.1, -1)])
def test_later_variables_share_the_budget_that_one_left(asked: float, sign: int) -> None:
    told = context(scale=8)
    even = places_of(told, Walk(told).go(lambda state: EVEN)[0]).mean()
    actions = iter([asked, EVEN, EVEN, EVEN])
    first, *later = places_of(told, Walk(told).go(lambda state: next(actions))[0])
    assert first == pytest.approx(np.interp(asked, [0, EVEN, 1], [0, even, 1]), abs=1 / 96)
    assert np.ptp(later) < 5 / 192
    assert sign * (even - np.mean(later)) > 0.02


def test_a_replay_sees_the_states_of_the_walk() -> None:
    told = context()
    draws = iter(np.random.default_rng(0).random(4))
    walk = Walk(told)
    levels, states = walk.go(lambda state: next(draws))
    actions, again = walk.replay(told.space.ladder.ratios(levels[None])[0])
    np.testing.assert_array_equal(again, states)
    np.testing.assert_array_equal(actions[:-1], states[1:, -1])


def test_states_hold_the_cost_saved_and_the_cost_left() -> None:
    told = context()
    walk, ladder = Walk(told), told.space.ladder
    dense, least = (float(ladder.usage(levels[None])[0]) for levels in (ladder.top, 0 * ladder.top))
    _, all_kept = walk.replay(ladder.high)
    _, all_cut = walk.replay(ladder.low)
    np.testing.assert_allclose(all_kept[:, 5], 0, atol=1e-12)
    assert (np.diff(all_kept[:, 6]) < 0).all()
    assert (np.diff(all_cut[:, 5]) > 0).all()
    np.testing.assert_allclose(all_cut[:, 5] + all_cut[:, 6], 1 - least / dense)


def test_shapes_of_layers_are_seen_and_ties_add_up() -> None:
    _, states = Walk(context()).replay(context().space.ladder.high)
    index, channels, inputs, kernel = states[:, :4].T
    np.testing.assert_allclose(index, [0, 1 / 3, 2 / 3, 1])
    np.testing.assert_allclose(channels, np.array([24, 64, 24, 24]) / 64)
    np.testing.assert_allclose(inputs, np.array([10, 13, 12, 0]) / 13)
    np.testing.assert_allclose(kernel, [1, 1, 1, 0])


def test_a_budget_of_parameters_is_walked_by_parameters() -> None:
    told = context(params=12_000)
    levels, _ = Walk(told).go(lambda state: 1.0)
    cost = told.space.cost(told.space.ladder.widths(levels[None]))
    assert 0.9 * 12_000 < np.asarray(cost.params)[0] <= 12_000
