"""The searched share of the budget: filled wherever some plan does, and every plan has its share."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.errors import BudgetError, ConfigError
from autoprune.graph import Cost
from autoprune.space import SHARE, Budget, ShareSpace, SpaceSpec, Tie, build_space
from autoprune.space._shares import KEPT
from tests.space.costs import Net, Widths, chain, dense_macs, group, resnet

RESNET = resnet(3)


def make_space(
    net: Net = RESNET, budget: Budget | None = None, spec: SpaceSpec | None = None, costs: str = "macs"
) -> ShareSpace:
    budget = budget or Budget(macs=dense_macs(net))
    return ShareSpace(build_space(*net, budget, spec), costs.split())


def proposals(space: ShareSpace, count: int, seed: int = 0) -> np.ndarray:
    ladder = space.ladder
    return np.random.default_rng(seed).uniform(ladder.low, ladder.high, (count, len(ladder.low)))


def costs_of(space: ShareSpace, widths: Widths, name: str) -> np.ndarray:
    return np.asarray(getattr(space.cost(widths), name), dtype=float)


@pytest.mark.parametrize("share", [1.0, 0.6, 0.25])
@pytest.mark.parametrize("divisor", [1, 2])
def test_each_proposal_fills_the_share_that_it_asks_for(share: float, divisor: int) -> None:
    """Of the whole model's cost if nothing is limited, else of the limit, which nothing exceeds."""
    limit = int(share * dense_macs(RESNET))
    space = make_space(budget=Budget(macs=limit), spec=SpaceSpec(divisor=divisor))
    assert [variable.name for variable in space.variables][:2] == [SHARE, "conv1"]
    asked = proposals(space, 100)
    macs = costs_of(space, space.decode(asked), "macs")
    assert (macs <= limit).all()
    nearest = space.shares[np.abs(space.shares[None] - asked[:, :1]).argmin(axis=1)]
    filled = macs / (nearest * limit)
    assert (filled <= 1).all()
    assert (filled >= 0.98).all()
    assert np.ptp(macs / limit) > 0.8 * np.ptp(space.shares)


def test_the_share_runs_from_the_smallest_plan_to_the_largest_or_to_the_limit() -> None:
    whole = make_space()
    dense = dense_macs(RESNET)
    smallest = costs_of(whole, whole.snap(whole.ladder.low), "macs")[0] / dense
    assert whole.variables[0].low == pytest.approx(smallest)
    assert whole.variables[0].high == 1.0
    narrow = make_space(spec=SpaceSpec(high=0.5))
    largest = costs_of(narrow, narrow.snap(narrow.ladder.high), "macs")[0] / dense
    assert narrow.variables[0].high == pytest.approx(largest)
    for space, end in ((whole, whole.ladder.low), (narrow, narrow.ladder.high)):
        np.testing.assert_array_equal(space.decode(end), space.snap(end))  # the ends themselves are there
    assert ((whole.shares[:-1] / whole.shares[1:]) >= 0.98).all()


@pytest.mark.parametrize("budget", [None, Budget(macs=2_000_000), Budget(macs=40_000_000, params=60_000)])
def test_decoded_widths_round_trip(budget: Budget | None) -> None:
    space = make_space(budget=budget)
    widths = space.decode(proposals(space, 100))
    encoded = space.encode(widths)
    np.testing.assert_array_equal(space.decode(encoded), widths)
    np.testing.assert_array_equal(space.encode(space.decode(encoded)), encoded)
    for row in (0, 7):
        np.testing.assert_array_equal(space.encode(widths[row]), encoded[row])
        np.testing.assert_array_equal(space.decode(encoded[row]), widths[row])


def test_any_plan_under_the_limit_has_a_share_that_decodes_to_it() -> None:
    """Small nets too: there a share of the parameters is a handful, and many plans miss the windows."""
    for net in (RESNET, chain([4, 3, 5]), chain([2, 2])):
        for costs, budget in (("macs", Budget(macs=dense_macs(net))), ("params", Budget(params=10**9))):
            space = make_space(net, budget, costs=costs)
            ladder = space.keep_ratios.ladder
            levels = np.random.default_rng(0).integers(0, ladder.top + 1, size=(200, len(ladder.top)))
            widths = ladder.widths(levels)
            np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)


def test_other_limits_stay_as_they_are() -> None:
    """A small share of the MACs is filled; a large one is met by filling the limit on parameters."""
    params = int(0.3 * costs_of(make_space(), np.array([[g.width for g in RESNET[0]]]), "params")[0])
    space = make_space(budget=Budget(macs=dense_macs(RESNET), params=params))
    asked = proposals(space, 100)
    widths = space.decode(asked)
    macs = costs_of(space, widths, "macs") / dense_macs(RESNET)
    used = costs_of(space, widths, "params") / params
    assert (used <= 1).all()
    filled = np.maximum(macs / space.shares[space.ladder.of_ratios(asked)[:, 0]], used)
    assert ((filled >= 0.98) & (filled <= 1)).all()
    assert (used >= 0.98).any()
    assert (used < 0.5).any()


def test_several_costs_share_one_share() -> None:
    def cost(widths: Widths) -> Cost:
        known = RESNET[1](widths)
        return known.plus(latency_ms=widths[:, :3].sum(axis=1) / 10.0)

    budget = Budget(macs=dense_macs(RESNET), latency_ms=4.8)
    space = ShareSpace(build_space(RESNET[0], cost, budget), ["macs", "latency_ms"])
    asked = proposals(space, 60)
    usage = space.usage(space.decode(asked))
    shares = space.shares[space.ladder.of_ratios(asked)[:, 0]]
    assert ((usage / shares >= 0.98 - 1e-9) & (usage / shares <= 1 + 1e-9)).all()
    macs = costs_of(space, space.decode(asked), "macs") / dense_macs(RESNET)
    latency = costs_of(space, space.decode(asked), "latency_ms") / 4.8
    assert (macs > latency + 0.05).any()
    assert (latency > macs + 0.05).any()


def test_few_of_the_spaces_of_single_shares_are_kept_and_the_others_are_made_again() -> None:
    space = make_space()
    asked = proposals(space, 3 * KEPT)
    first = space.decode(asked[:5])
    space.decode(asked)
    np.testing.assert_array_equal(space.decode(asked[:5]), first)
    assert len(space._spaces) == KEPT


def test_heuristics_get_shares_spread_over_the_range() -> None:
    space = make_space()
    spread = space.spread(4)
    shares = [share or 0.0 for share, _ in spread]
    low, high = space.shares[0], space.shares[-1]
    np.testing.assert_allclose(shares, low + (high - low) * np.array([1, 3, 5, 7]) / 8, rtol=0.02)
    for share, part in spread:
        assert part.budget.limits["macs"] == pytest.approx((share or 0.0) * dense_macs(RESNET))
        widths = part.decode(np.full(len(part.variables), 0.5))
        np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)
    assert space.keep_ratios.spread(4) == [(None, space.keep_ratios)]
    by_ratio = [share or 0.0 for share, _ in space.spread(4, by_ratio=True)]
    np.testing.assert_allclose(by_ratio, low * (high / low) ** (np.array([1, 3, 5, 7]) / 8), rtol=0.02)


def test_a_space_of_one_size_has_one_share() -> None:
    groups = (group("a", 2), group("b", 64, frozen="kept"))

    def cost(widths: Widths) -> Cost:
        return Cost(1_000_000 + widths[:, 0], widths.sum(axis=1))

    space = ShareSpace(build_space(groups, cost, Budget(macs=2_000_000)), ["macs"])
    assert space.reach().in_window
    assert len(space.shares) == 2
    for width in (1, 2):
        widths = np.array([width, 64])
        np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(BudgetError, match="is the smallest reachable"):
        make_space(budget=Budget(macs=1000))
    smallest = int(costs_of(make_space(), make_space().snap(make_space().ladder.low), "macs")[0])
    with pytest.raises(BudgetError, match="the smallest plan alone meets the budget, so there is no front"):
        make_space(budget=Budget(macs=smallest))
    assert len(make_space(budget=Budget(macs=smallest + smallest // 100)).shares) > 1
    tied = SpaceSpec(ties=(Tie(SHARE, ("conv1", "layer1.*")),))
    with pytest.raises(ConfigError, match='"budget_share" is the name of the searched share'):
        make_space(spec=tied)
