"""The geometry of charts: axes with round ticks, and marks at the places of their values."""

from __future__ import annotations

import math

import pytest

from autoprune.reporting._html_chart import Axis, Plot


@pytest.mark.parametrize(
    "values",
    [[0.88, 0.93], [0, 1000], [5.0], [0.0], [-3.0, 12.5], [1e-7, 2e-7], [1e12, 3e12], [math.nan, 2.0]],
)
def test_ticks_are_round_distinct_and_in_order_within_the_axis(values: list[float]) -> None:
    axis = Axis.over(values)
    ticks = axis.ticks
    assert 2 <= len(ticks) <= 8
    assert len({tick.text for tick in ticks}) == len(ticks)
    for tick in ticks:
        assert 0 <= tick.at <= 1
        value = float(tick.text.replace(",", ""))
        assert value == pytest.approx(axis.low + tick.at * (axis.high - axis.low), abs=1e-9 * abs(axis.high))
    assert all(0 < axis.at(value) < 1 for value in values if math.isfinite(value))


def test_marks_rise_with_their_values_and_stay_on_the_plot() -> None:
    plot = Plot(Axis(0, 10), Axis(0, 1), height=200)
    assert plot.place(2.5, 0.25) == (25.0, 150.0)
    assert plot.place(-5, 7) == (0.0, 0.0)
    plot.steps([(0, 0.5), (10, 1.0)], "best")
    across, up = plot.lines
    assert (across.x1, across.y1, across.x2, across.y2) == (0, 100, 100, 100)
    assert (up.x1, up.y1, up.x2, up.y2) == (100, 100, 100, 0)
