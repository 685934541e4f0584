from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from autoprune.latency import Measurement, Ratio
from autoprune.latency.timing import median_interval, undisturbed
from autoprune.latency.timing._measurement import FEWEST_ROUNDS


@pytest.mark.parametrize("count", [6, 7, 10, 25, 100, 401])
def test_the_interval_is_that_of_the_quantile_test(count: int) -> None:
    values = np.random.default_rng(count).lognormal(size=count)
    median, interval = median_interval(values.tolist())
    expected = stats.quantile_test(values, p=0.5).confidence_interval(0.95)
    assert median == np.median(values)
    assert interval == (expected.low, expected.high)  # type: ignore[attr-defined]  # the stubs take it for a float


def test_the_interval_covers_the_median_of_a_skewed_noise() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(2000):
        low, high = median_interval(rng.exponential(size=20).tolist())[1]
        covered += low <= np.log(2) <= high
    # At least 95% by construction; four standard errors of a share of 2000 are 2%.
    assert covered / 2000 > 0.93


def test_too_few_values_are_refused() -> None:
    with pytest.raises(ValueError, match="got 5 values, expected at least 6"):
        median_interval([1.0] * (FEWEST_ROUNDS - 1))


def test_a_measurement_summarises_slices() -> None:
    slices = [[1.0, 9.0, 2.0], [2.0], [3.0, 3.0], [4.0], [2.0], [5.0]]
    measured = Measurement.of(slices, seconds=1.5, tolerance=0.5)
    assert measured.median_ms == 2.5  # of 2, 2, 3, 4, 2, 5: the 9 is one run of a slice
    assert measured.interval_ms == (2.0, 5.0)
    assert (measured.runs, measured.seconds) == (9, 1.5)
    assert measured.p90_ms == np.percentile([1, 9, 2, 2, 3, 3, 4, 2, 5], 90)
    assert not measured.tight


@pytest.mark.parametrize(("spread", "tight"), [(0.019, True), (0.021, False)])
def test_tight_is_a_half_width_within_the_tolerance(spread: float, tight: bool) -> None:
    rounds = [(10 * (1 - spread), 1.0)] * 3 + [(10 * (1 + spread), 1.0)] * 3
    assert Ratio.of(rounds, tolerance=0.02).tight is tight


def test_a_ratio_goes_by_the_rounds_in_which_both_ran_fast() -> None:
    fast, busy = [(4.0 + 0.01 * place, 10.0) for place in range(6)], [(6.0, 11.0)] * 18
    rounds = [*busy[:9], *fast, *busy[9:]]
    assert undisturbed(rounds) == list(range(9, 15))
    ratio = Ratio.of(rounds, tolerance=0.02)
    assert ratio.ratio == pytest.approx(0.4025)
    assert ratio.interval == pytest.approx((0.4, 0.405))


def test_of_few_rounds_all_count() -> None:
    rounds = [(4.0, 10.0), (9.0, 20.0), (4.0, 11.0), (4.2, 10.0), (4.0, 30.0), (5.0, 10.0)]
    assert undisturbed(rounds) == list(range(6))
