"""Decoding against brute force: every proposal in the window wherever some plan is, and round trips."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from autoprune.errors import BudgetError, PlanError
from autoprune.graph import Cost
from autoprune.space import Budget, SearchSpace, SpaceSpec, Tie, build_space
from tests.space.costs import Net, chain, dense_macs, group, resnet

STAGES = (Tie("s1", ("layer1.*",)), Tie("s2", ("layer2.*",)), Tie("s3", ("layer3.*",)))
NETS: dict[str, tuple[Net, tuple[Tie, ...]]] = {
    "resnet20": (resnet(3), ()),
    "resnet20-stages": (resnet(3), STAGES),
    "resnet56": (resnet(9), ()),
    "vgg": (chain([64, 64, 128, 128, 256, 256, 512, 512], [1024, 1024, 256, 256, 64, 64, 16, 16]), ()),
    "chain": (chain([16, 24, 32, 48]), ()),
}


def make_space(net: Net, share: float, spec: SpaceSpec | None = None) -> SearchSpace:
    return build_space(net[0], net[1], Budget(macs=int(share * dense_macs(net))), spec)


def random_ratios(space: SearchSpace, n: int) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    low, high = (np.array([getattr(v, end) for v in space.variables]) for end in ("low", "high"))
    return np.random.default_rng(0).uniform(low, high, (n, len(low)))


def brute_force_usages(net: Net, share: float, divisor: int) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """All usages <= 1 of plans with widths that are multiples of the divisor (halved for small groups)."""
    choices = []
    for each in net[0]:
        step = next(d for d in (divisor, divisor // 2, divisor // 4, 1) if d and each.width >= 2 * d)
        choices.append([w for w in {*range(step, each.width, step), each.width} if w >= 0.1 * each.width])
    usage = np.asarray(net[1](np.array(list(itertools.product(*choices)))).macs) / int(
        share * dense_macs(net)
    )
    return np.asarray(usage[usage <= 1])


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25])
@pytest.mark.parametrize("divisor", [1, 4, 8])
@pytest.mark.parametrize("name", NETS)
def test_every_proposal_lies_in_the_window(name: str, divisor: int, share: float) -> None:
    net, ties = NETS[name]
    space = make_space(net, share, SpaceSpec(divisor=divisor, ties=ties))
    widths = space.decode(random_ratios(space, 300))
    usage = space.usage(widths)
    assert usage.max() <= 1.0
    assert (usage >= 0.98).all() or not space.reach().in_window
    full = np.array([each.width for each in net[0]])
    assert ((widths % divisor == 0) | (widths == full)).all()
    assert (widths >= np.minimum(divisor, full)).all()
    np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)


def test_snapping_keeps_to_the_steps_and_leaves_the_budget_out() -> None:
    net, ties = NETS["resnet20-stages"]
    space = make_space(net, 0.25, SpaceSpec(divisor=4, ties=ties))
    fitting = space.decode(random_ratios(space, 100))
    np.testing.assert_array_equal(space.snap(space.encode(fitting)), fitting)
    low, high = (space.snap(np.array([getattr(v, end) for v in space.variables])) for end in ("low", "high"))
    assert (high == [each.width for each in net[0]]).all()
    assert low.shape == high.shape
    reach = space.reach()
    assert (space.cost(low).macs, space.cost(high).macs) == (reach.smallest.macs, reach.largest.macs)
    snapped = space.snap(random_ratios(space, 100))
    assert space.usage(snapped).max() > 1
    assert ((snapped % 4 == 0) & (snapped >= low) & (snapped <= high)).all()


@pytest.mark.parametrize("share", [0.9, 0.7, 0.5, 0.3, 0.25, 0.2, 0.1])
@pytest.mark.parametrize("divisor", [1, 2, 4, 8])
@pytest.mark.parametrize("widths", [(16, 32), (16, 24, 32), (8, 16, 16, 32), (16, 16, 16, 16, 16)])
def test_the_window_is_met_exactly_if_brute_force_finds_a_plan(
    widths: tuple[int, ...], divisor: int, share: float
) -> None:
    if divisor == 1 and len(widths) > 3:
        pytest.skip("too many plans to list")
    net = chain(widths)
    usages = brute_force_usages(net, share, divisor)
    if not len(usages):
        with pytest.raises(BudgetError, match="smallest reachable"):
            make_space(net, share, SpaceSpec(divisor=divisor))
        return
    space = make_space(net, share, SpaceSpec(divisor=divisor))
    decoded = space.usage(space.decode(random_ratios(space, 100)))
    best = float(usages.max())
    assert space.reach().in_window == (best >= 0.98)
    assert decoded.max() <= 1.0
    if best >= 0.98:
        assert decoded.min() >= 0.98
    else:
        np.testing.assert_allclose(decoded, best, rtol=1e-9)


def test_distinct_proposals_stay_distinct_and_near() -> None:
    space = make_space(resnet(3), 0.5)
    ratios = random_ratios(space, 500)
    widths = space.decode(ratios)
    assert len(np.unique(widths, axis=0)) == 500
    asked = np.argsort(ratios, axis=1)
    got = np.argsort(space.encode(widths), axis=1, kind="stable")
    ranks = [np.corrcoef(np.argsort(a), np.argsort(b))[0, 1] for a, b in zip(asked, got, strict=True)]
    assert np.mean(ranks) > 0.9


def test_batches_and_single_proposals_agree_and_repeat() -> None:
    space = make_space(resnet(3), 0.25, SpaceSpec(divisor=8))
    ratios = random_ratios(space, 40)
    together = space.decode(ratios)
    np.testing.assert_array_equal(together, np.stack([space.decode(row) for row in ratios]))
    again = make_space(resnet(3), 0.25, SpaceSpec(divisor=8))
    np.testing.assert_array_equal(together[::-1], again.decode(ratios[::-1]))


def test_two_budgets_are_both_met_and_the_tighter_is_filled() -> None:
    net = resnet(3)
    dense = net[1](np.array([[each.width for each in net[0]]]))
    macs, params = int(0.6 * np.asarray(dense.macs)[0]), int(0.4 * np.asarray(dense.params)[0])
    space = build_space(net[0], net[1], Budget(macs=macs, params=params))
    cost = space.cost(space.decode(random_ratios(space, 200)))
    shares = np.stack([np.asarray(cost.macs) / macs, np.asarray(cost.params) / params])
    assert shares.max() <= 1
    assert shares.max(axis=0).min() >= 0.98


def test_a_budget_out_of_reach_names_the_smallest_cost() -> None:
    net = resnet(3)
    smallest = int(np.asarray(net[1](np.array([[each.width // 2 for each in net[0]]])).macs)[0])
    with pytest.raises(BudgetError, match=rf"{smallest:,} is the smallest reachable"):
        make_space(net, 0.1, SpaceSpec(low=0.5))


def test_reach_gives_the_ends_of_the_space() -> None:
    net = chain([16, 32])
    reach = make_space(net, 0.5, SpaceSpec(low=0.5)).reach()
    assert int(np.asarray(reach.largest.macs)[0]) == dense_macs(net)
    assert int(np.asarray(reach.smallest.macs)[0]) == int(np.asarray(net[1](np.array([[8, 16]])).macs)[0])
    assert reach.in_window


def test_frozen_groups_and_single_widths_are_no_variables() -> None:
    groups, cost = chain([16, 32, 8])
    groups = (groups[0], group("conv1", 32, frozen="by hand"), groups[2])
    space = build_space(groups, cost, Budget(macs=dense_macs((groups, cost)) // 2))
    assert [variable.name for variable in space.variables] == ["conv0", "conv2"]
    assert (space.decode(random_ratios(space, 20))[:, 1] == 32).all()
    with pytest.raises(PlanError, match="no group is left"):
        build_space(groups, cost, Budget(macs=10**9), SpaceSpec(skip=("*",)))


def test_wrong_shapes_and_values_are_refused() -> None:
    space = make_space(chain([16, 32]), 0.5)
    with pytest.raises(PlanError, match="expected 2 columns"):
        space.decode(np.zeros(3))
    with pytest.raises(PlanError, match="not finite"):
        space.decode(np.array([0.5, np.nan]))


def test_decoding_is_fast() -> None:
    """At most 1 ms a proposal of 40 groups, the median of three batches of 1,000."""
    net = chain([64] * 10 + [128] * 10 + [256] * 10 + [512] * 10)
    space = make_space(net, 0.5, SpaceSpec(divisor=8))
    ratios = random_ratios(space, 1000)
    seconds = []
    for _ in range(3):
        start = time.process_time()
        space.decode(ratios)
        seconds.append(time.process_time() - start)
    assert np.median(seconds) < 1.0


def test_three_hundred_groups_are_decoded() -> None:
    net = chain([32] * 300)
    space = make_space(net, 0.4, SpaceSpec(divisor=8))
    usage = space.usage(space.decode(random_ratios(space, 20)))
    assert ((usage >= 0.98) & (usage <= 1)).all()


def test_latency_and_macs_bound_a_proposal_together() -> None:
    """A latency that grows with the first widths alone: sometimes it binds, sometimes the MACs do."""
    groups, macs = resnet(3)
    whole = sum(each.width for each in groups[:3])

    def cost(widths: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Cost:
        return macs(widths).plus(latency_ms=(widths[:, :3] @ np.ones(3)) / whole)

    limits = Budget(macs=dense_macs((groups, macs)) // 2, latency_ms=0.625).limits
    space = build_space(groups, cost, Budget(macs=int(limits["macs"]), latency_ms=limits["latency_ms"]))
    decoded = space.cost(space.decode(random_ratios(space, 200)))
    shares = np.stack([np.asarray(getattr(decoded, name)) / limit for name, limit in limits.items()])
    assert (shares <= 1).all()
    assert (shares.max(axis=0) >= 0.98).all()
    assert (shares.argmax(axis=0) == 0).any()
    assert (shares.argmax(axis=0) == 1).any()


def test_a_latency_out_of_reach_is_refused() -> None:
    groups, macs = resnet(3)

    def cost(widths: np.ndarray[tuple[int, int], np.dtype[np.int64]]) -> Cost:
        return macs(widths).plus(latency_ms=5.0 + widths[:, 0].astype(np.float64))

    with pytest.raises(BudgetError, match=r"budget\.latency_ms: got 4, but 7 is the smallest reachable"):
        build_space(groups, cost, Budget(latency_ms=4.0))
