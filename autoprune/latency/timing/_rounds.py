"""Interleaved timing: rounds of short slices of each model, until the confidence intervals are tight.

A machine that slows down for a while slows the model and its baseline alike, so that their ratio stays.

Example:
    timings = time_interleaved({"small": run_small, "dense": run_dense}, baseline="dense")
    timings.measurements["small"].median_ms, timings.ratios["small"].interval
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import numpy as np

from autoprune.latency.timing._measurement import (
    FEWEST_ROUNDS,
    Measurement,
    Ratio,
    Reduction,
    is_tight,
    median_interval,
)
from autoprune.support.memory import kept_memory

Name = TypeVar("Name", bound=Hashable)

Timed: TypeAlias = Callable[[], float]
"""Runs one forward pass and returns its milliseconds."""

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since a fixed moment, as `time.perf_counter` does."""

Progress: TypeAlias = Callable[[int, int], None]
"""Called with (number of models done, number of models)."""

_MOST_RUNS = 1000
"""Largest number of runs in a slice, however short a run is."""

_LONG_RUN = 0.1
"""Seconds of a run so long that filling the processor's caches again adds only a few thousandths to it."""

_PREPARED = 2
"""Number of models that surely stay prepared at a time.

PyTorch caches the last 1,024 oneDNN primitives, those of about 20 models, and makes dropped ones again at the
next run. For MobileNetV3-L that takes 40 ms, and a forward pass takes 160 ms.
"""

_FRESH_SECONDS = 0.25
"""An older slice of the baseline is not compared with: a shared machine changes its speed within a second."""

_WARM_UP_RUNS, _WARM_UP_SECONDS = 5, 0.5
"""A warm-up ends after this many runs or seconds, but not before a model has run twice."""


@dataclass(frozen=True)
class Timings(Generic[Name]):
    """The results of interleaved timing.

    Attributes:
        measurements: {name: the model's own time}.
        ratios: {name: the model's time over the baseline's}, without the baseline. It is empty if there is no
            baseline.
        slices: {name: the value of each of its slices in milliseconds}. There is one slice in each round, and
            there may be more of the baseline.
    """

    measurements: Mapping[Name, Measurement]
    ratios: Mapping[Name, Ratio]
    slices: Mapping[Name, Sequence[float]]


def time_interleaved(
    timed: Mapping[Name, Timed],
    *,
    baseline: Name | None = None,
    tolerance: float = 0.02,
    limit_seconds: float = 10.0,
    slice_seconds: float = 0.02,
    reduce: Reduction = statistics.median,
    clock: Clock = time.perf_counter,
) -> Timings[Name]:
    """Time models side by side, after a warm-up, until every interval is tight or the time is over.

    In a round each model runs for one slice. A slice begins with an untimed run that brings the model's
    weights back into the caches, then come as many timed runs as fill `slice_seconds`. The untimed run is
    left out if a run takes a tenth of a second or more and at most one other model ran in between. The
    baseline runs for one more slice before each model if its last slice is too old to compare with.

    Rounds go on until all intervals are within the tolerance, or until `limit_seconds` have passed since the
    start. The intervals are those of the ratios to the baseline, or of the medians if there is no baseline.
    Six rounds are run even if that takes longer, because a 95% interval needs them. Memory that a forward
    pass frees is kept for the next one (see `kept_memory`).

    Args:
        timed: {name: function that runs the model once}, at least one.
        baseline: name of the model to which the others are compared.
        tolerance: largest half-width of an interval, as a share of its median.
        limit_seconds: no round starts after this time.
        slice_seconds: duration of the timed runs of a slice. A slower model runs once.
        reduce: reduces the milliseconds of a slice's runs to one value. `min` ignores interrupted runs and
            is several times as exact on a busy machine. But the fastest of many runs is faster than the
            fastest of few, so use it for models of nearly the same size.
        clock: the clock that measures limits and slices.
    """
    started = clock()
    with kept_memory():
        slices = _Slices(timed, baseline, slice_seconds, reduce, clock)
        for rounds, order in enumerate(_orders(list(timed)), start=1):
            for name in order:
                slices.run_slice(name)
            slices.end_round()
            if rounds >= FEWEST_ROUNDS and (
                clock() - started >= limit_seconds or slices.are_tight(tolerance)
            ):
                break
    total = clock() - started
    return Timings(
        {
            name: Measurement.of(each, seconds=total, tolerance=tolerance, reduce=reduce)
            for name, each in slices.runs.items()
        },
        {name: Ratio.of(each, tolerance=tolerance) for name, each in slices.pairs.items()},
        slices.values,
    )


class _Slices(Generic[Name]):
    """Runs slices of warm models and records their times.

    Attributes:
        runs: {name: the milliseconds of the runs of each slice}.
        values: {name: the value of each slice}.
        pairs: {name: (value of each slice, value of the baseline at that moment)}, without the baseline.
    """

    def __init__(
        self,
        timed: Mapping[Name, Timed],
        baseline: Name | None,
        slice_seconds: float,
        reduce: Reduction,
        clock: Clock,
    ) -> None:
        self._timed, self._baseline = timed, baseline
        self._slice_seconds, self._reduce, self._clock = slice_seconds, reduce, clock
        self._seconds = {name: _warm_up(run, clock) for name, run in timed.items()}
        self._midpoints: dict[Name, list[float]] = {name: [] for name in timed}
        self._ended = 0
        self._by_last_run = list(timed)
        self.runs: dict[Name, list[list[float]]] = {name: [] for name in timed}
        self.values: dict[Name, list[float]] = {name: [] for name in timed}
        self.pairs: dict[Name, list[tuple[float, float]]] = {
            name: [] for name in timed if baseline not in (None, name)
        }

    def run_slice(self, name: Name) -> None:
        """Run one slice of a model, and before it one of the baseline if its last slice is too old."""
        baseline = self._baseline
        if baseline is not None and name != baseline:
            before = self._midpoints[baseline]
            if not before or self._clock() - before[-1] > _FRESH_SECONDS + self._seconds[baseline] / 2:
                self._run_slice(baseline)
        self._run_slice(name)

    def end_round(self) -> None:
        """End a round: pair each model's slice with the baseline's time at the same moment.

        That time is interpolated between the baseline's slices of this round. No slice counts in two rounds,
        so the ratios of different rounds are independent.
        """
        if self._baseline is not None:
            midpoints = self._midpoints[self._baseline][self._ended :]
            values = self.values[self._baseline][self._ended :]
            for name, rounds in self.pairs.items():
                baseline = float(np.interp(self._midpoints[name][-1], midpoints, values))
                rounds.append((self.values[name][-1], baseline))
            self._ended += len(midpoints)

    def are_tight(self, tolerance: float) -> bool:
        """Return whether the intervals of all ratios are tight, or of all medians without a baseline."""
        if self.pairs:
            return all(Ratio.of(each, tolerance=tolerance).tight for each in self.pairs.values())
        return all(is_tight(*median_interval(each), tolerance) for each in self.values.values())

    def _run_slice(self, name: Name) -> None:
        # A long run is repeated untimed only if enough other models ran in between to displace its kernels.
        if self._seconds[name] < _LONG_RUN or name not in self._by_last_run[-_PREPARED:]:
            self._timed[name]()
        self._by_last_run.remove(name)
        self._by_last_run.append(name)
        runs = min(_MOST_RUNS, math.ceil(self._slice_seconds / self._seconds[name]))
        started = self._clock()
        self.runs[name].append([self._timed[name]() for _ in range(runs)])
        self._midpoints[name].append((started + self._clock()) / 2)
        self.values[name].append(self._reduce(self.runs[name][-1]))


def _orders(names: list[Name]) -> Iterator[list[Name]]:
    """Yield an order for each round: a random one, its reverse, another, and so on."""
    # The reverse order cancels a steady drift of the machine's speed: no model always runs later.
    rng = np.random.default_rng(0)
    while True:
        order = [names[i] for i in rng.permutation(len(names))]
        yield order
        yield order[::-1]


def _warm_up(run: Timed, clock: Clock) -> float:
    """Run a model a few times and return the seconds of the shortest run, since others may be interrupted."""
    started = clock()
    run()
    seconds: list[float] = []
    while len(seconds) < _WARM_UP_RUNS - 1 and (not seconds or clock() - started < _WARM_UP_SECONDS):
        before = clock()
        run()
        seconds.append(clock() - before)
    return max(min(seconds), 1e-9)
