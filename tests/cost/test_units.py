"""Amounts of costs as they are printed: prefixes, digits and units."""

from __future__ import annotations

import pytest

from autoprune.cost import COSTS, amount, budget_keys, three_digits


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
    assert three_digits(number) == shown


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
def test_a_cost_is_written_with_its_unit(cost: str, value: float, shown: str) -> None:
    assert COSTS[cost].unit.write(value) == shown


def test_every_key_has_an_option_and_counts_in_a_unit_of_its_cost() -> None:
    keys = budget_keys()
    assert keys["peak_memory"].option == "--peak-memory"
    assert keys["flops"].unit.write(40_600_000) == "40.6 M FLOPs"
    for key in keys.values():
        assert key.per_cost == 1 or key.unit.name != COSTS[key.cost].unit.name
    assert len({spec.label for spec in COSTS.values()}) == len(COSTS)
