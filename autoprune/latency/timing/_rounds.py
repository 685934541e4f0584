"""Own the order in which models are timed: in turn, round by round, until the intervals are tight enough.

Before: `probes` make models ready to run; after: `measurement` holds what came out. A machine that slows down
for a while slows the model and its baseline alike, so that their ratio stays.

    timings = time_in_turn({"small": run_small, "dense": run_dense}, baseline="dense")
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
    OfTurn,
    Ratio,
    is_tight,
    median_interval,
)
from autoprune.support.memory import kept_memory

Name = TypeVar("Name", bound=Hashable)

Timed: TypeAlias = Callable[[], float]
"""Runs one forward pass and returns its milliseconds."""

Clock: TypeAlias = Callable[[], float]
"""Returns seconds since some moment, as `time.perf_counter` does."""

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many of how many models are done."""

_MOST_RUNS = 1000
"""Of a turn, however short a run is."""

_LONG_RUN = 0.1
"""Seconds next to which filling the processor's caches again counts for little: a few thousandths."""

_PREPARED = 2
"""So many models surely stay prepared at a time: PyTorch keeps the last 1,024 oneDNN primitives, those of
some 20 models, and makes again what it dropped for others' (for MobileNetV3-L in 40 ms; a pass takes 160)."""

_BESIDE_SECONDS = 0.25
"""A shared machine changes its speed within a second: an older turn of the baseline tells nothing of it."""

_WARM_UP_RUNS, _WARM_UP_SECONDS = 5, 0.5
"""A warm-up ends with whichever is reached first, but no sooner than a model has run twice."""


@dataclass(frozen=True)
class Timings(Generic[Name]):
    """What models timed in turn gave.

    Attributes:
        measurements: {name: its own time}.
        ratios: {name: its time over the baseline's}, for all but the baseline; empty where there is none.
        turns: {name: what each of its turns counted as, in milliseconds}; one a round, of a baseline more.
    """

    measurements: Mapping[Name, Measurement]
    ratios: Mapping[Name, Ratio]
    turns: Mapping[Name, Sequence[float]]


def time_in_turn(
    timed: Mapping[Name, Timed],
    *,
    baseline: Name | None = None,
    tolerance: float = 0.02,
    limit_seconds: float = 10.0,
    turn_seconds: float = 0.02,
    of_turn: OfTurn = statistics.median,
    clock: Clock = time.perf_counter,
) -> Timings[Name]:
    """Time models side by side, after a warm-up, until every interval is tight or the time is over.

    Memory that a pass frees is kept for the next one, whatever the allocator would do (see `kept_memory`).

    In a round each model has one turn: an untimed run that brings its weights back into the caches (unless
    a run takes a tenth of a second or more, and at most one other model ran since its last), then as many
    timed ones as fill `turn_seconds`. The baseline has one more before each model that would not have run
    beside it otherwise. Rounds go on until the interval of each ratio to the baseline (of each median, where
    there is no baseline) is within the tolerance, or `limit_seconds` have passed since the start; six rounds,
    which a 95% interval takes, are run even if that lasts longer.

    Args:
        timed: {name: runs the model once}; at least one.
        baseline: the name to whose time the others are related.
        tolerance: largest half-width of an interval, as a share of its median.
        limit_seconds: no round starts after so long.
        turn_seconds: how long the timed runs of a turn last together, at least; slower models run once.
        of_turn: what the runs of a turn count as. `min` forgets runs that were interrupted, and is several
            times as exact on a busy machine; but the fastest of many runs is faster than that of few, so it
            is for models of nearly the same size.
        clock: the clock that limits and turns go by.
    """
    started = clock()
    with kept_memory():
        turns = _Turns(timed, baseline, turn_seconds, of_turn, clock)
        for rounds, order in enumerate(_orders(list(timed)), start=1):
            for name in order:
                turns.take(name)
            turns.relate()
            if rounds >= FEWEST_ROUNDS and (clock() - started >= limit_seconds or turns.are_tight(tolerance)):
                break
    total = clock() - started
    return Timings(
        {
            name: Measurement.of(each, seconds=total, tolerance=tolerance, of_turn=of_turn)
            for name, each in turns.runs.items()
        },
        {name: Ratio.of(each, tolerance=tolerance) for name, each in turns.beside.items()},
        turns.counted,
    )


class _Turns(Generic[Name]):
    """Gives warm models their turns, and notes what they took.

    Attributes:
        runs: {name: the milliseconds of the runs of each turn}.
        counted: {name: what each turn counted as}.
        beside: {name: (what each turn counted as, and the baseline at that moment)}, for all but the
            baseline.
    """

    def __init__(
        self,
        timed: Mapping[Name, Timed],
        baseline: Name | None,
        turn_seconds: float,
        of_turn: OfTurn,
        clock: Clock,
    ) -> None:
        self._timed, self._baseline = timed, baseline
        self._turn_seconds, self._of_turn, self._clock = turn_seconds, of_turn, clock
        self._seconds = {name: _warm_up(run, clock) for name, run in timed.items()}
        self._moments: dict[Name, list[float]] = {name: [] for name in timed}
        self._related = 0
        self._by_last_run = list(timed)
        self.runs: dict[Name, list[list[float]]] = {name: [] for name in timed}
        self.counted: dict[Name, list[float]] = {name: [] for name in timed}
        self.beside: dict[Name, list[tuple[float, float]]] = {
            name: [] for name in timed if baseline not in (None, name)
        }

    def take(self, name: Name) -> None:
        """Give a model a turn, and the baseline one before it if its last was too long ago."""
        baseline = self._baseline
        if baseline is not None and name != baseline:
            before = self._moments[baseline]
            if not before or self._clock() - before[-1] > _BESIDE_SECONDS + self._seconds[baseline] / 2:
                self._take(baseline)
        self._take(name)

    def relate(self) -> None:
        """End a round: set its turns beside what the baseline's in it, around them, tell of their moments.

        No turn of the baseline counts in two rounds, whose ratios are independent of each other.
        """
        if self._baseline is not None:
            moments = self._moments[self._baseline][self._related :]
            counted = self.counted[self._baseline][self._related :]
            for name, rounds in self.beside.items():
                baseline = float(np.interp(self._moments[name][-1], moments, counted))
                rounds.append((self.counted[name][-1], baseline))
            self._related += len(moments)

    def are_tight(self, tolerance: float) -> bool:
        """Tell whether the intervals of all ratios are tight; of all medians, where there is no baseline."""
        if self.beside:
            return all(Ratio.of(each, tolerance=tolerance).tight for each in self.beside.values())
        return all(is_tight(*median_interval(each), tolerance) for each in self.counted.values())

    def _take(self, name: Name) -> None:
        if self._seconds[name] < _LONG_RUN or name not in self._by_last_run[-_PREPARED:]:
            self._timed[name]()
        self._by_last_run.remove(name)
        self._by_last_run.append(name)
        runs = min(_MOST_RUNS, math.ceil(self._turn_seconds / self._seconds[name]))
        started = self._clock()
        self.runs[name].append([self._timed[name]() for _ in range(runs)])
        self._moments[name].append((started + self._clock()) / 2)
        self.counted[name].append(self._of_turn(self.runs[name][-1]))


def _orders(names: list[Name]) -> Iterator[list[Name]]:
    """Yield an order for each round: a random one, its reverse, another, and so on."""
    rng = np.random.default_rng(0)
    while True:
        order = [names[i] for i in rng.permutation(len(names))]
        yield order
        yield order[::-1]


def _warm_up(run: Timed, clock: Clock) -> float:
    """Run a model a few times and return the seconds of the shortest run, as another may be interrupted."""
    started = clock()
    run()
    seconds: list[float] = []
    while len(seconds) < _WARM_UP_RUNS - 1 and (not seconds or clock() - started < _WARM_UP_SECONDS):
        before = clock()
        run()
        seconds.append(clock() - before)
    return max(min(seconds), 1e-9)
