"""All plans of a small space: exactly those to which proposals can decode."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoprune.space import Budget, SearchSpace, ShareSpace, SpaceSpec, build_space
from tests.space.costs import chain, dense_macs


def space_of(widths: list[int], share: float, divisor: int) -> SearchSpace:
    net = chain(widths)
    return build_space(*net, Budget(macs=int(share * dense_macs(net))), SpaceSpec(divisor=divisor))


def decoded(space: SearchSpace) -> set[bytes]:
    """Return the plans to which a fine grid of proposals decodes."""
    places = [np.linspace(each.low, each.high, 25) for each in space.variables]
    return {widths.tobytes() for widths in space.decode(np.array(list(itertools.product(*places))))}


@pytest.mark.parametrize("share", [0.3, 0.5, 0.9])
@pytest.mark.parametrize("divisor", [4, 8])
def test_the_plans_are_those_that_a_grid_of_proposals_decodes_to(share: float, divisor: int) -> None:
    space = space_of([24, 32, 24], share, divisor)
    assert space.plans is not None
    plans = {widths.tobytes() for widths in space.plans}
    assert len(plans) == len(space.plans)
    assert decoded(space) <= plans
    np.testing.assert_array_equal(space.decode(space.encode(space.plans)), space.plans)


def test_all_plans_within_the_budget_count_if_a_share_is_searched() -> None:
    space = ShareSpace(space_of([24, 32, 24], 0.9, 8), ["macs"])
    assert space.plans is not None
    plans = {widths.tobytes() for widths in space.plans}
    assert decoded(space) <= plans
    np.testing.assert_array_equal(space.decode(space.encode(space.plans)), space.plans)


def test_a_large_space_is_not_listed() -> None:
    assert space_of([64] * 12, 0.5, 1).plans is None
    assert ShareSpace(space_of([64] * 12, 0.5, 1), ["macs"]).plans is None
