"""The dynamic programme: exact if costs add up, and never worse than the plan that it starts from."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autoprune.graph import Cost
from autoprune.space import Budget, build_space, channel_values, cut, uniform_gates
from autoprune.space._dynamic import BINS, improved, total_values
from tests.space.costs import Net, Widths, group, resnet
from tests.space.test_allocation import make_space, scores_of

WIDTHS = (7, 5, 6, 4)


def additive() -> Net:
    groups = tuple(group(f"g{i}", width) for i, width in enumerate(WIDTHS))
    prices = np.array([3, 5, 2, 7])

    def cost(widths: Widths) -> Cost:
        return Cost(widths @ prices, widths.sum(axis=1))

    return groups, cost


@pytest.mark.parametrize("budget", [25, 40, 60])
@pytest.mark.parametrize("seed", range(4))
def test_one_table_is_exact_if_costs_add_up(budget: int, seed: int) -> None:
    groups, cost = additive()
    space = build_space(groups, cost, Budget(macs=budget))
    # A unit of cost is BINS / (2 budget) bins at least, and four roundings add up to two bins.
    assert BINS / (2 * budget) > 2 * 2
    rng = np.random.default_rng(seed)
    values = [np.sort(rng.uniform(size=len(row.ratios))) for row in space.ladder.rows]
    levels = improved(space.ladder, values, np.zeros(4, dtype=np.int64))
    plans = np.array(list(itertools.product(*(range(top + 1) for top in space.ladder.top))))
    fitting = plans[space.ladder.usage(plans) <= 1]
    assert total_values(values, levels[None])[0] == total_values(values, fitting).max()


@pytest.mark.parametrize("share", [0.6, 0.25])
def test_it_never_loses_value_and_fits(share: float) -> None:
    net = resnet(3)
    space = make_space(net, share)
    values = channel_values(space.ladder.rows, scores_of(space, net))
    start = cut(space.ladder, uniform_gates(space.ladder.rows))
    levels = improved(space.ladder, values, start)
    assert space.ladder.usage(levels[None])[0] <= 1
    before, after = total_values(values, np.stack([start, levels]))
    assert after > before
