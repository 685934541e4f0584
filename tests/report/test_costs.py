"""Costs in words: the unit is chosen by what is shown, and every cost has a heading and an option."""

from __future__ import annotations

import pytest

from autoprune.graph import COSTS
from autoprune.report import amount, label, option_of_key, said, said_in
from autoprune.report._costs import milliseconds, option
from autoprune.run._budget_amounts import KEYS


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0"),
        (7, "7"),
        (999, "999"),
        (1000, "1 k"),
        (1_234, "1.23 k"),
        (20_312_576, "20.3 M"),
        (999_400, "999 k"),
        (999_700, "1 M"),
        (999_499_999, "999 M"),
        (999_500_001, "1 G"),
        (1.2e12, "1.2 T"),
        (9.996e11, "1 T"),
    ],
)
def test_amounts_have_three_digits_and_the_unit_that_these_are_in(number: float, shown: str) -> None:
    assert amount(number) == shown


@pytest.mark.parametrize(
    ("number", "shown"), [(12.3456, "12.3"), (4.0, "4"), (0.9, "0.9"), (99.96, "100"), (1234.5678, "1235")]
)
def test_milliseconds_have_three_digits_or_all_before_the_point(number: float, shown: str) -> None:
    assert milliseconds(number) == shown


@pytest.mark.parametrize(
    ("cost", "value", "shown"),
    [
        ("macs", 20_312_576, "20.3 M MACs"),
        ("params", 12, "12 parameters"),
        ("latency_ms", 3.1416, "3.14 ms"),
        ("size_bytes", 1_234_567, "1.23 MB"),
        ("peak_memory_bytes", 12, "12 B"),
    ],
)
def test_a_cost_is_said_with_its_unit(cost: str, value: float, shown: str) -> None:
    assert said(cost, value) == shown


def test_every_cost_is_said_in_the_unit_of_the_key_that_limits_it() -> None:
    for key in KEYS:
        if key.per_cost == 1:
            assert said_in(key.unit, 4_321_000.0) == said(key.cost, 4_321_000.0)
    assert said_in("FLOPs", 40_600_000) == "40.6 M FLOPs"


def test_every_cost_has_a_heading_and_the_option_of_a_key() -> None:
    assert {option(cost) for cost in COSTS} <= {option_of_key(key.name) for key in KEYS}
    assert option("peak_memory_bytes") == "--peak-memory"
    assert len({label(cost) for cost in COSTS}) == len(COSTS)
