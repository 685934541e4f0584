"""A stopped trial's value, against values by hand and against what samplers need of it."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.samplers.stopped import PENALTY, value_of_stopped

CLIMBED = [[0.30, 0.20, 0.92], [0.36, 0.10, 0.90], [0.42, 0.30, 0.96]]
"""Of three rungs; the last one's scores are 0.90, 0.92 and 0.96, whose spread is 0.06."""


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.30], 0.90 - 2 * PENALTY * 0.06),  # as low among its rung's scores as 0.90 among the last one's
        ([0.33], 0.91 - 2 * PENALTY * 0.06),
        ([0.36], 0.92 - 2 * PENALTY * 0.06),
        ([0.99], 0.96 - 2 * PENALTY * 0.06),  # the best of the rung is the best there can be
        ([0.25], 0.87 - 2 * PENALTY * 0.06),  # halfway down to the lowest
        ([0.20], 0.84 - 2 * PENALTY * 0.06),  # the lowest: one spread below the worst
        ([0.10], 0.84 - 2 * PENALTY * 0.06),  # lower than all before
        ([0.30, 0.30], 0.96 - PENALTY * 0.06),  # one rung less is missing
        ([0.99, 0.15], 0.91 - PENALTY * 0.06),  # judged by its last rung
    ],
)
def test_values_by_hand(scores: list[float], expected: float) -> None:
    lowest = [0.2, 0.1][len(scores) - 1]
    assert value_of_stopped(scores, climbed=CLIMBED, lowest=lowest, rungs=3) == pytest.approx(expected)


def test_where_none_has_climbed_the_score_is_all_there_is() -> None:
    assert value_of_stopped([0.3], climbed=[], lowest=0.1, rungs=2) == 0.3


def test_one_that_climbed_tells_the_level_alone() -> None:
    assert value_of_stopped([0.1], climbed=[[0.3, 0.9]], lowest=0.1, rungs=2) == 0.9


@pytest.mark.parametrize("level", [-0.6, 0.0, 0.6])
def test_the_order_stays_and_none_beats_the_best(level: float) -> None:
    """Whether the last rung's scores lie above or below the first one's."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(0, 1, 30)
    first = 0.2 + 0.2 * quality + rng.normal(0, 0.02, 30)
    last = first.mean() + level + 0.03 * quality
    climbed = [[float(first[n]), float(last[n])] for n in range(12)]
    values = [
        value_of_stopped([float(first[n])], climbed=climbed, lowest=float(first.min()), rungs=2)
        for n in range(12, 30)
    ]
    order = np.argsort(first[12:])
    assert (np.diff(np.array(values)[order]) >= 0).all()
    assert max(values) < last[:12].max()
    spread = float(np.ptp(last[:12]))
    assert min(values) >= last[:12].min() - (1 + PENALTY) * spread - 1e-12
