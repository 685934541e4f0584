"""The savings of groups: they add up, and are the average over all orders of narrowing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import autoprune
from autoprune.graph import Cost
from autoprune.run._results.savings import saved_by_group
from autoprune.support.arrays import IntArray
from tests.models import Residual, image


def test_savings_are_the_average_over_all_orders_in_which_groups_are_narrowed() -> None:
    prunable = autoprune.trace(Residual(), *image())
    names = [group.name for group in prunable.groups]
    dense = np.array([group.width for group in prunable.groups], dtype=np.int64)
    free = [place for place, group in enumerate(prunable.groups) if group.frozen is None]
    assert len(free) > 1
    widths = dense.copy()
    widths[free] = np.maximum(1, dense[free] // 2 - np.arange(len(free)) % 2)
    found = saved_by_group(prunable.cost, names, dense, widths)
    assert list(found) == [names[place] for place in free]
    expected = dict.fromkeys(free, 0.0)
    orders = list(itertools.permutations(free))
    for order in orders:
        now = dense.copy()
        for place in order:
            before = int(prunable.cost(now[None]).one().macs)
            now[place] = widths[place]
            expected[place] += (before - int(prunable.cost(now[None]).one().macs)) / len(orders)
    for place in free:
        assert found[names[place]]["macs"] == pytest.approx(expected[place])
    for cost in ("macs", "params"):
        whole = prunable.cost().known()[cost] - prunable.cost(widths[None]).one().known()[cost]
        assert sum(saved[cost] for saved in found.values()) == pytest.approx(whole)


def test_groups_that_stay_whole_save_nothing_and_are_left_out() -> None:
    def cost(widths: IntArray) -> Cost:
        return Cost(widths[:, 0] * widths[:, 1], widths.sum(axis=1))

    found = saved_by_group(cost, ["a", "b"], np.array([4, 6]), np.array([2, 6]))
    assert found == {"a": {"macs": 12.0, "params": 2.0}}
