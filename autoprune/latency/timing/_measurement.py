"""Own what a timing gives: medians in milliseconds and ratios, each with its 95% confidence interval.

Before: `timing` collects the milliseconds of single runs, turn by turn; after: studies store the values, the
command line prints them.

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
from scipy import stats

OfTurn: TypeAlias = Callable[[Sequence[float]], float]
"""What the milliseconds of a turn's runs count as, together."""

FEWEST_ROUNDS = 6
"""The largest and the smallest of six values enclose the median with 97%, of five with 94%: too little."""


@dataclass(frozen=True)
class Measurement:
    """How long one forward pass of a model takes.

    The interval takes a turn, not a run, for one draw, as runs of one turn meet the same noise. What is noisy
    for longer than a turn (another program, a clock that steps down) widens it only in part: to compare two
    models, take their Ratio.

    Attributes:
        median_ms: median over turns of what a turn counts as: its median run, unless asked otherwise.
        interval_ms: 95% confidence interval of that median.
        p90_ms: nine of ten single runs took no longer.
        runs: single runs that were timed.
        seconds: wall time of the whole timing, the other models' turns included.
        tight: whether the interval's half-width is within the tolerance that was asked.
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
        turns: Sequence[Sequence[float]],
        *,
        seconds: float,
        tolerance: float,
        of_turn: OfTurn = statistics.median,
    ) -> Measurement:
        """Summarise the milliseconds of single runs, grouped by turn; at least FEWEST_ROUNDS turns."""
        median, interval = median_interval([of_turn(turn) for turn in turns])
        runs = np.concatenate([np.asarray(turn, dtype=float) for turn in turns])
        p90 = float(np.percentile(runs, 90))
        tight = is_tight(median, interval, tolerance)
        return cls(median, interval, p90, len(runs), seconds, tight)


@dataclass(frozen=True)
class Ratio:
    """A model's time over the baseline's, from turns beside each other: what both suffered cancels out.

    What else runs on a machine does not slow both alike: for as long as a neighbour fills the shared caches
    a model that fits into them loses more. So only rounds in which the two ran fast count.

    Attributes:
        ratio: median over these rounds of (turn's median of the model / turn's median of the baseline).
        interval: 95% confidence interval of that median.
        tight: whether the interval's half-width is within the tolerance that was asked.
    """

    ratio: float
    interval: tuple[float, float]
    tight: bool

    @classmethod
    def of(cls, rounds: Sequence[tuple[float, float]], *, tolerance: float) -> Ratio:
        """Summarise rounds, (milliseconds of the model, of the baseline); at least FEWEST_ROUNDS."""
        ratios = [mine / beside for mine, beside in rounds]
        median, interval = median_interval([ratios[place] for place in undisturbed(rounds)])
        return cls(median, interval, is_tight(median, interval, tolerance))


def undisturbed(
    rounds: Sequence[tuple[float, float]], *, share: float = 0.25, least: int = FEWEST_ROUNDS
) -> list[int]:
    """Return the places of that share of rounds, at least so many, in which model and baseline ran fastest.

    Both count alike, each over its own median: to go by one alone would favour it.
    """
    times = np.array(rounds)
    slowness = (times / np.median(times, axis=0)).sum(axis=1)
    kept = np.argsort(slowness, kind="stable")[: max(least, math.ceil(share * len(rounds)))]
    return sorted(kept.tolist())


def median_interval(values: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Return the median and its 95% confidence interval from order statistics, whatever the distribution.

    Reference: Conover, Practical Nonparametric Statistics (1999), section 3.2.

    Raises:
        ValueError: fewer than FEWEST_ROUNDS values.
    """
    if len(values) < FEWEST_ROUNDS:
        raise ValueError(f"{len(values)} values: an interval of a median takes {FEWEST_ROUNDS}.")
    ordered = np.sort(values)
    rank = _rank(len(values))
    return float(np.median(ordered)), (float(ordered[rank - 1]), float(ordered[-rank]))


@functools.cache
def _rank(count: int) -> int:
    """Return how many values lie below the median in all but 2.5% of samples of this size, and above it."""
    return int(stats.binom.ppf(0.025, count, 0.5))


def is_tight(median: float, interval: tuple[float, float], tolerance: float) -> bool:
    """Tell whether the half-width of an interval is at most the tolerance, as a share of the median."""
    low, high = interval
    return (high - low) / 2 <= tolerance * median
