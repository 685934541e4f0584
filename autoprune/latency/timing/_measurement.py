"""Summarise timed runs: medians in milliseconds and ratios, each with its 95% confidence interval.

Example:
    measured = Measurement.of([[4.1, 4.0], [4.2, 4.1], ...], seconds=1.3, tolerance=0.02)
    measured.median_ms, measured.interval_ms, measured.tight
"""

from __future__ import annotations

import functools
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Reduction: TypeAlias = Callable[[Sequence[float]], float]
"""(milliseconds of the runs of a slice) -> the slice's value."""

FEWEST_ROUNDS = 6
"""Number of values that a 95% interval needs.

The smallest and the largest of six values enclose the median with a probability of 97%, of five with 94%.
"""


@dataclass(frozen=True)
class Measurement:
    """How long one forward pass of a model takes.

    Runs of one slice see the same noise, so the interval treats a slice, not a run, as one sample. Noise that
    lasts longer than a slice (another program, a lower clock rate) widens the interval only in part. To
    compare two models, use their Ratio.

    Attributes:
        median_ms: median over the slices' values. The value of a slice is its median run by default.
        interval_ms: 95% confidence interval of that median.
        p90_ms: 90th percentile of all single runs.
        runs: number of timed runs.
        seconds: wall time of the whole timing, with the other models' slices.
        tight: whether the interval's half-width is within the requested tolerance.
    """

    median_ms: float
    interval_ms: tuple[float, float]
    p90_ms: float
    runs: int
    seconds: float
    tight: bool

    @classmethod
    def of(
        cls,
        slices: Sequence[Sequence[float]],
        *,
        seconds: float,
        tolerance: float,
        reduce: Reduction = statistics.median,
    ) -> Measurement:
        """Summarise the milliseconds of single runs, grouped by slice, at least FEWEST_ROUNDS slices."""
        median, interval = median_interval([reduce(each) for each in slices])
        runs = np.concatenate([np.asarray(each, dtype=float) for each in slices])
        p90 = float(np.percentile(runs, 90))
        tight = is_tight(median, interval, tolerance)
        return cls(median, interval, p90, len(runs), seconds, tight)


@dataclass(frozen=True)
class Ratio:
    """A model's time over the baseline's, from slices next to each other, so that common noise cancels out.

    Other load on a machine need not slow both models alike. While another program fills the shared caches, a
    model that fits into them loses more. So only the rounds in which both ran fastest count.

    Attributes:
        ratio: median over these rounds of the model's slice value over the baseline's.
        interval: 95% confidence interval of that median.
        tight: whether the interval's half-width is within the requested tolerance.
    """

    ratio: float
    interval: tuple[float, float]
    tight: bool

    @classmethod
    def of(cls, rounds: Sequence[tuple[float, float]], *, tolerance: float) -> Ratio:
        """Summarise at least FEWEST_ROUNDS rounds, each as (milliseconds of the model, of the baseline)."""
        ratios = [mine / baseline for mine, baseline in rounds]
        median, interval = median_interval([ratios[place] for place in undisturbed(rounds)])
        return cls(median, interval, is_tight(median, interval, tolerance))


def undisturbed(
    rounds: Sequence[tuple[float, float]], *, share: float = 0.25, least: int = FEWEST_ROUNDS
) -> list[int]:
    """Return the indices of the rounds in which model and baseline ran fastest.

    The two times of a round count equally, each divided by its own median. Selecting by one of them alone
    would favour that model.

    Args:
        rounds: (milliseconds of the model, of the baseline) of each round.
        share: share of the rounds to return.
        least: number of rounds to return at least.
    """
    times = np.array(rounds)
    slowness = (times / np.median(times, axis=0)).sum(axis=1)
    kept = np.argsort(slowness, kind="stable")[: max(least, math.ceil(share * len(rounds)))]
    return sorted(kept.tolist())


def median_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median and its 95% confidence interval from order statistics, for any distribution.

    Reference: Conover, Practical Nonparametric Statistics (1999), section 3.2.

    Raises:
        ValueError: fewer than FEWEST_ROUNDS values.
    """
    if len(values) < FEWEST_ROUNDS:
        raise ValueError(f"median_interval: got {len(values)} values, expected at least {FEWEST_ROUNDS}.")
    ordered = np.sort(values)
    rank = _rank(len(values))
    return float(np.median(ordered)), (float(ordered[rank - 1]), float(ordered[-rank]))


@functools.cache
def _rank(count: int) -> int:
    """Return the rank, from either end, of the values that bound the 95% interval of `count` values."""
    from scipy.stats import binom  # takes a while to import

    # The number of values below the median is binomial. The rank is the smallest r with P(B <= r) >= 2.5%, so
    # the median lies outside at either end with a probability P(B < r) below 2.5%.
    return int(binom.ppf(0.025, count, 0.5))


def is_tight(median: float, interval: tuple[float, float], tolerance: float) -> bool:
    """Return whether the half-width of an interval, as a share of the median, is at most the tolerance."""
    low, high = interval
    return (high - low) / 2 <= tolerance * median
