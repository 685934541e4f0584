"""The searched depth: blocks stay as proposed if widths can fill the budget, and plans are fixed points."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoprune.errors import BudgetError
from autoprune.graph import Block, Cost
from autoprune.space import (
    Budget,
    ChoiceSpace,
    DepthSpace,
    ShareSpace,
    SpaceSpec,
    Tie,
    build_depth_space,
    build_space,
)
from tests.space.costs import Net, Widths, dense_macs, resnet

PLAIN = resnet(3)
DENSE = dense_macs(PLAIN)


def with_blocks(net: Net, names: list[str]) -> tuple[Net, tuple[Block, ...]]:
    """Return a net whose inner groups cost nothing if their block is dropped."""
    groups, whole = net
    columns = [[group.name for group in groups].index(f"{name}.conv1") for name in names]
    blocks = tuple(
        Block(f"{name}:branch", (), (f"{name}.conv1",), frozenset(), frozenset(), {}) for name in names
    )

    def cost(widths: Widths) -> Cost:
        inner, kept = widths[:, : len(groups)].copy(), widths[:, len(groups) :]
        # The cost is linear in each inner width, so width 0 counts as no branch.
        inner[:, columns] *= kept
        return whole(inner)

    return (groups, cost), blocks


NAMES = ["layer1.0", "layer1.1", "layer1.2", "layer2.1", "layer2.2", "layer3.1", "layer3.2"]


def make_space(share: float, spec: SpaceSpec | None = None, names: list[str] = NAMES) -> DepthSpace:
    (groups, cost), blocks = with_blocks(PLAIN, names)
    return build_depth_space(groups, blocks, cost, Budget(macs=int(share * DENSE)), spec)


def proposals(space: DepthSpace, count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(
        space.ladder.low, space.ladder.high, (count, len(space.variables))
    )


@pytest.mark.parametrize("share", [0.5, 0.25, 0.1])
@pytest.mark.parametrize("divisor", [1, 4])
def test_proposals_fill_the_budget_with_the_blocks_that_they_ask_for(share: float, divisor: int) -> None:
    space = make_space(share, SpaceSpec(divisor=divisor))
    asked = proposals(space, 60)
    widths = space.decode(asked)
    usage = space.usage(widths)
    assert (usage <= 1).all()
    assert (usage >= 0.98).all()
    kept, wanted = widths[:, -len(NAMES) :], asked[:, : len(NAMES)] >= 0.5
    assert 0.1 < 1 - wanted.mean() < 0.4  # about a quarter of the blocks is dropped
    ends = np.stack(
        [
            space.snap(np.where(np.arange(asked.shape[1]) < len(NAMES), row, low))
            for low in (0.0, 1.0)
            for row in asked
        ]
    )
    least, most = space.usage(ends).reshape(2, -1)
    possible = (least <= 1) & (most >= 0.98)
    assert possible.any()
    assert (kept == wanted)[possible].all()


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_every_plan_is_a_fixed_point(share: float) -> None:
    space = make_space(share)
    widths = space.decode(proposals(space, 40))
    np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)
    ratios = space.encode(widths)
    np.testing.assert_array_equal(space.settle(ratios), ratios)


def test_the_widths_inside_a_dropped_block_have_no_effect() -> None:
    space = make_space(0.3)
    names = list(space.groups)
    asked = proposals(space, 40)
    asked[:, 0] = 0.4
    other = asked.copy()
    other[:, [each.name for each in space.variables].index("layer1.0.conv1")] = 0.1
    widths = space.decode(asked)
    np.testing.assert_array_equal(widths, space.decode(other))
    assert (widths[:, names.index("layer1.0:branch")] == 0).all()
    assert (widths[:, names.index("layer1.0.conv1")] == 16).all()


def test_tied_groups_share_their_ratio_if_only_some_blocks_are_dropped() -> None:
    space = make_space(0.3, SpaceSpec(ties=(Tie("first", ("layer1.*.conv1",)),)))
    asked = proposals(space, 30)
    asked[:, :3] = [0.4, 0.4, 1.0]
    widths = space.decode(asked)
    columns = [space.groups.index(f"layer1.{block}.conv1") for block in range(3)]
    assert (widths[:, columns] == widths[:, columns[:1]]).all()
    np.testing.assert_array_equal(space.decode(space.encode(widths)), widths)


def test_blocks_are_dropped_if_the_budget_needs_it() -> None:
    smallest = int(make_space(0.9).reach().smallest.one().macs)
    (groups, cost), blocks = with_blocks(PLAIN, NAMES)
    spec = SpaceSpec(low=0.5)
    least = int(build_space(groups, PLAIN[1], Budget(macs=DENSE), spec).reach().smallest.one().macs)
    budget = Budget(macs=int(0.8 * least))  # out of reach for the narrowest widths with all blocks
    space = build_depth_space(groups, blocks, cost, budget, spec)
    assert space.reach().in_window
    widths = space.decode(np.ones(len(space.variables)))
    assert 0 < widths[-len(NAMES) :].sum() < len(NAMES)
    assert 0.98 <= space.usage(widths)[0] <= 1
    kept = space.keep_ratios.decode(np.ones(len(space.keep_ratios.variables)))
    assert kept[-len(NAMES) :].sum() < len(NAMES)
    with pytest.raises(BudgetError, match="is the smallest reachable here"):
        build_depth_space(groups, blocks, cost, Budget(macs=smallest // 2), SpaceSpec())


def test_plans_of_a_small_space_are_those_that_proposals_decode_to() -> None:
    spec = SpaceSpec(divisor=16, skip=("layer2.*", "layer3.*", "conv1"))
    space = make_space(0.72, spec, NAMES[:4])
    listed = space.plans
    assert listed is not None
    found = space.decode(proposals(space, 400))
    assert {tuple(row) for row in found.tolist()} <= {tuple(row) for row in listed.tolist()}
    brute = []
    for levels in itertools.product(*(range(top + 1) for top in space.ladder.top)):
        widths = space.snap(space.ladder.ratios(np.array([levels]))[0])
        brute.append(tuple(widths.tolist()))
    usage = {row: float(space.usage(np.array(row))[0]) for row in set(brute)}
    fullest = min(0.98, max(each for each in usage.values() if each <= 1))
    assert {row for row, each in usage.items() if fullest <= each <= 1} == {tuple(r) for r in listed.tolist()}


def test_a_searched_share_and_searched_criteria_hold_the_blocks_too() -> None:
    depth = make_space(1.0)
    share = ShareSpace(depth, ["macs"])
    both = ChoiceSpace(share, ("l1", "l2"))
    rng = np.random.default_rng(0)
    asked = rng.uniform(both.ladder.low, both.ladder.high, (20, len(both.variables)))
    widths = both.decode(asked)
    wanted = share.shares[np.abs(share.shares[None] - asked[:, :1]).argmin(axis=1)]
    filled = both.usage(widths) / wanted
    assert (filled <= 1 + 1e-9).all()
    assert (filled >= 0.98).all()
    assert (widths[:, -len(NAMES) :] == 0).any()
    ratios = both.settle(asked)
    np.testing.assert_allclose(both.settle(ratios), ratios)
    np.testing.assert_array_equal(both.decode(ratios), widths)
    assert both.candidate(asked[0])["layer1.0:branch"] in (0, 1)
    for dropping, count in ((False, 0), (True, len(NAMES))):
        for _, part in both.spread(3, dropping=dropping):
            assert len(part.variables) - len(both.keep_ratios.variables) == count


def test_random_choices_complete_a_proposal_of_keep_ratios() -> None:
    space = make_space(0.5)
    ratios = space.keep_ratios.ladder.low
    whole = space.complete(ratios, np.random.default_rng(0))
    np.testing.assert_array_equal(whole[len(NAMES) :], ratios)
    assert ((whole[: len(NAMES)] >= 1 / 3) & (whole[: len(NAMES)] <= 1)).all()
