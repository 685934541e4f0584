"""Orders cut at the budget: against brute force over every threshold, and what they rest on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from autoprune.space import (
    Budget,
    SearchSpace,
    SpaceSpec,
    Tie,
    build_space,
    cut,
    drop_gates,
    ranking_gates,
    uniform_gates,
)
from autoprune.space._allocation import isotonic
from tests.space.costs import Net, chain, dense_macs, resnet

Floats = NDArray[np.float64]
NETS: dict[str, Net] = {
    "resnet20": resnet(3),
    "vgg": chain([64, 64, 128, 128, 256, 256, 512, 512], [1024, 1024, 256, 256, 64, 64, 16, 16]),
    "chain": chain([16, 24, 32, 48]),
}
STAGES = (Tie("s1", ("layer1.*",)), Tie("s2", ("layer2.*",)), Tie("s3", ("layer3.*",)))


def make_space(net: Net, share: float, spec: SpaceSpec | None = None) -> SearchSpace:
    return build_space(net[0], net[1], Budget(macs=int(share * dense_macs(net))), spec)


def scores_of(space: SearchSpace, net: Net, seed: int = 0) -> list[list[Floats]]:
    rng = np.random.default_rng(seed)
    width = {group.name: group.width for group in net[0]}
    return [[rng.gamma(2.0, size=width[name]) for name in each.groups] for each in space.variables]


@pytest.mark.parametrize("share", [0.8, 0.5, 0.25])
@pytest.mark.parametrize("seed", range(3))
def test_a_ranking_is_cut_at_the_lowest_threshold_that_fits(share: float, seed: int) -> None:
    """Widths by definition: all channels at or above a threshold; every threshold is tried."""
    net = chain([16, 24, 32, 48])
    space = make_space(net, share, SpaceSpec(low=0.05))
    scores = scores_of(space, net, seed)
    floors = [int(row.widths[0, 0]) for row in space.ladder.rows]
    best = None
    for threshold in sorted(np.concatenate([group for each in scores for group in each])):
        kept = [
            max(int((group >= threshold).sum()), floor)
            for (group,), floor in zip(scores, floors, strict=True)
        ]
        if space.usage(np.array(kept))[0] <= 1:
            best = np.array(kept)
            break
    assert best is not None
    got = space.ladder.widths(cut(space.ladder, ranking_gates(space.ladder.rows, scores))[None])[0]
    assert (got >= best).all()
    if space.usage(best)[0] >= 0.98:
        np.testing.assert_array_equal(got, best)
    assert space.usage(got)[0] <= 1
    decoded = space.decode(space.encode(got))
    assert 0.98 <= space.usage(decoded)[0] <= 1
    assert np.abs(decoded - got).sum() <= 3, "where no single step fits, decoding moves few channels"
    assert (got - best).sum() <= 3, "only what fills the window is added to the ranking's own widths"


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("divisor", [1, 8])
@pytest.mark.parametrize("share", [0.7, 0.25])
def test_what_an_order_gives_fits_and_is_full_after_decoding(name: str, divisor: int, share: float) -> None:
    net = NETS[name]
    for ties in ((), STAGES) if name == "resnet20" else ((),):
        space = make_space(net, share, SpaceSpec(divisor=divisor, ties=ties))
        rows = space.ladder.rows
        for gates in (uniform_gates(rows), ranking_gates(rows, scores_of(space, net))):
            levels = cut(space.ladder, gates)
            assert space.ladder.usage(levels[None])[0] <= 1
            widths = space.decode(space.encode(space.ladder.widths(levels[None])[0]))
            assert space.usage(widths)[0] <= 1
            assert space.usage(widths)[0] >= 0.98 or not space.reach().in_window


def test_uniform_is_one_ratio() -> None:
    net = NETS["vgg"]
    space = make_space(net, 0.4)
    levels = cut(space.ladder, uniform_gates(space.ladder.rows))
    kept = space.ladder.widths(levels[None])[0] / np.array([group.width for group in net[0]])
    assert np.ptp(kept) <= 1 / 64


def test_equal_gates_are_raised_together() -> None:
    """If a score is uninformative, no group is favoured for its place in the list."""
    space = make_space(NETS["chain"], 0.4)
    rows = space.ladder.rows
    flat = [np.zeros(len(row.ratios) - 1) for row in rows]
    np.testing.assert_allclose(
        space.ladder.ratios(cut(space.ladder, flat)[None]),
        space.ladder.ratios(cut(space.ladder, uniform_gates(rows))[None]),
        atol=0.1,
    )


@pytest.mark.parametrize("seed", range(20))
def test_isotonic_is_the_nearest_of_all_nondecreasing_sequences(seed: int) -> None:
    """Brute force: the fit is made of means of blocks, so the best split into blocks with rising means."""
    values = np.random.default_rng(seed).normal(size=7)
    best, least = values, np.inf
    for breaks in itertools.product([False, True], repeat=6):
        blocks = np.split(values, np.flatnonzero(breaks) + 1)
        fit = np.concatenate([np.full(len(block), block.mean()) for block in blocks])
        error = float(((fit - values) ** 2).sum())
        if (np.diff(fit) >= -1e-12).all() and error < least:
            best, least = fit, error
    got = isotonic(values)
    np.testing.assert_allclose(got, best, atol=1e-12)
    assert (np.diff(got) >= 0).all()
    np.testing.assert_allclose(isotonic(np.sort(values)), np.sort(values))


def test_all_groups_drop_by_one_tolerance() -> None:
    """Planted losses, linear in what is cut: at one tolerance each keeps 1 - tolerance / slope."""
    net = NETS["vgg"]
    space = make_space(net, 0.5)
    rows = space.ladder.rows
    slopes = np.linspace(0.2, 0.9, len(rows))
    ratios = [np.array([0.1, 0.4, 0.7])] * len(rows)
    scores = [0.9 - slope * (1 - at) for slope, at in zip(slopes, ratios, strict=True)]
    levels = cut(space.ladder, drop_gates(rows, ratios, scores, 0.9))
    drops = slopes * (1 - space.ladder.ratios(levels[None])[0])
    inside = levels > 0
    assert inside.sum() >= 4
    assert np.ptp(drops[inside]) <= 0.9 * 2 / 64
    assert (drops[~inside] <= drops[inside].min() + 0.01).all()


def test_a_score_that_dips_between_others_is_taken_as_monotone() -> None:
    """Three of four channels score 0.9, two 0.5 and one 0.7: the last two count as 0.6, their mean."""
    rows = make_space(chain([4]), 1.0, SpaceSpec(low=0.25)).ladder.rows
    np.testing.assert_allclose(rows[0].ratios, [0.25, 0.5, 0.75, 1.0])
    ratios, scores = np.array([0.25, 0.5, 0.75]), np.array([0.7, 0.5, 0.9])
    (gates,) = drop_gates(rows, [ratios], [scores], 0.95)
    np.testing.assert_allclose(gates, [0.35, 0.35, 0.05])
