"""The order and the end of a timing, on a clock of its own."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from autoprune.latency import time_interleaved
from autoprune.latency.timing._measurement import FEWEST_ROUNDS, Reduction


class Machine:
    """A machine whose time passes only while a model runs, and which may be slow for a while."""

    def __init__(self, slowness: Callable[[float], float] = lambda now: 1.0) -> None:
        self.now = 0.0
        self.slowness = slowness
        self.order: list[str] = []

    def model(self, name: str, draw: Callable[[], float]) -> Callable[[], float]:
        """Return a model that takes so many milliseconds, times how slow the machine is then."""

        def run() -> float:
            milliseconds = draw() * self.slowness(self.now)
            self.now += milliseconds / 1e3
            self.order.append(name)
            return milliseconds

        return run

    def clock(self) -> float:
        return self.now


def slices_of(order: list[str]) -> list[tuple[str, int]]:
    """Group a list of runs into (model, runs of the slice)."""
    slices: list[tuple[str, int]] = []
    for name in order:
        if slices and slices[-1][0] == name:
            slices[-1] = (name, slices[-1][1] + 1)
        else:
            slices.append((name, 1))
    return slices


def test_a_calm_machine_needs_the_fewest_rounds() -> None:
    machine = Machine()
    timings = time_interleaved(
        {"small": machine.model("small", lambda: 30.0), "dense": machine.model("dense", lambda: 60.0)},
        baseline="dense",
        clock=machine.clock,
    )
    assert timings.ratios == {"small": timings.ratios["small"]}
    assert (timings.ratios["small"].ratio, timings.ratios["small"].tight) == (0.5, True)
    assert timings.measurements["dense"].median_ms == 60.0
    assert timings.measurements["small"].runs == FEWEST_ROUNDS
    assert timings.slices["small"] == [30.0] * FEWEST_ROUNDS
    assert set(timings.slices["dense"]) == {60.0}
    assert timings.measurements["small"].seconds == pytest.approx(machine.now)


def test_short_models_fill_their_turns_and_long_ones_run_once() -> None:
    machine = Machine()
    time_interleaved(
        {"short": machine.model("short", lambda: 1.0), "long": machine.model("long", lambda: 50.0)},
        slice_seconds=0.02,
        clock=machine.clock,
    )
    # Twenty timed runs and one that brings the weights back into the caches; 12 slices after the warm-up,
    # of which two neighbours may be of one model.
    short = [count for name, count in slices_of(machine.order)[2:] if name == "short"]
    assert set(short) <= {21, 42}
    assert sum(short) == 21 * FEWEST_ROUNDS
    assert sum(count for name, count in slices_of(machine.order)[2:] if name == "long") == 2 * FEWEST_ROUNDS


def test_one_interrupted_run_does_not_shorten_the_slices() -> None:
    machine = Machine()
    first = iter([1.0, 16.0])
    timings = time_interleaved(
        {"short": machine.model("short", lambda: next(first, 1.0))}, slice_seconds=0.02, clock=machine.clock
    )
    assert timings.measurements["short"].runs == 20 * FEWEST_ROUNDS


def test_every_other_round_is_the_reverse_of_the_one_before() -> None:
    machine = Machine()
    names = [str(number) for number in range(5)]
    time_interleaved({name: machine.model(name, lambda: 50.0) for name in names}, clock=machine.clock)
    runs = machine.order[-2 * len(names) * FEWEST_ROUNDS :]  # two of each slice
    rounds = [runs[start : start + 10 : 2] for start in range(0, len(runs), 10)]
    assert all(sorted(each) == names for each in rounds)
    assert all(rounds[i + 1] == rounds[i][::-1] for i in range(0, len(rounds), 2))
    assert len({tuple(each) for each in rounds[::2]}) > 1


def test_slow_phases_widen_the_medians_but_cancel_in_the_ratio() -> None:
    machine = Machine(lambda now: 1.0 + 0.8 * math.sin(now))
    rng = np.random.default_rng(0)
    timings = time_interleaved(
        {
            "small": machine.model("small", lambda: 3 * rng.lognormal(sigma=0.01)),
            "dense": machine.model("dense", lambda: 4 * rng.lognormal(sigma=0.01)),
        },
        baseline="dense",
        tolerance=0.005,
        limit_seconds=60,
        clock=machine.clock,
    )
    ratio = timings.ratios["small"]
    assert ratio.tight
    assert ratio.ratio == pytest.approx(0.75, rel=0.01)
    assert not timings.measurements["dense"].tight


def test_the_baseline_runs_just_before_every_slow_model() -> None:
    machine = Machine(lambda now: 2.0 + math.sin(now / 5))
    slow = {str(number): machine.model(str(number), lambda: 300.0) for number in range(20)}
    timings = time_interleaved(
        {**slow, "dense": machine.model("dense", lambda: 600.0)}, baseline="dense", clock=machine.clock
    )
    slices = slices_of(machine.order)
    first = next(place for place, (_, runs) in enumerate(slices) if runs == 1)  # the warm-up is over
    assert all("dense" in (slices[place][0], slices[place - 1][0]) for place in range(first, len(slices)))
    assert all(len(timings.slices[name]) == FEWEST_ROUNDS for name in slow)
    # A round takes as long as the machine takes to change by half: its one slice would not help.
    assert all(ratio.ratio == pytest.approx(0.5, rel=0.1) for ratio in timings.ratios.values())


def test_what_a_slow_model_prepares_again_is_not_timed() -> None:
    machine, kept = Machine(), 20

    def model(name: str, milliseconds: float) -> Callable[[], float]:
        """Return a model that takes a quarter longer if more than `kept` others ran since it did."""

        def draw() -> float:
            others = itertools.takewhile(lambda other: other != name, reversed(machine.order))
            return milliseconds * (1.25 if len(set(others)) > kept else 1.0)

        return machine.model(name, draw)

    slow = {str(number): model(str(number), 160.0) for number in range(30)}
    timings = time_interleaved(
        {**slow, "dense": model("dense", 280.0)}, baseline="dense", clock=machine.clock
    )
    assert all(set(timings.slices[name]) == {160.0} for name in slow)
    assert set(timings.slices["dense"]) == {280.0}


def test_two_slow_models_are_run_only_to_be_timed() -> None:
    machine = Machine()
    time_interleaved(
        {"small": machine.model("small", lambda: 300.0), "dense": machine.model("dense", lambda: 600.0)},
        baseline="dense",
        clock=machine.clock,
    )
    warm_up = 2
    assert machine.order.count("small") == warm_up + FEWEST_ROUNDS


def test_runs_that_were_interrupted_can_be_forgotten() -> None:
    def interval(reduce: Reduction) -> tuple[float, float]:
        machine, rng = Machine(), np.random.default_rng(0)
        # Two runs in three wait for another program.
        model = machine.model("model", lambda: 2.0 + (rng.random() < 2 / 3) * rng.exponential(5))
        timings = time_interleaved(
            {"model": model}, tolerance=1e-3, limit_seconds=3, reduce=reduce, clock=machine.clock
        )
        return timings.measurements["model"].interval_ms

    assert interval(min) == (2.0, 2.0)
    assert interval(statistics.median)[0] > 2.5


def test_noise_asks_for_rounds_until_the_interval_is_tight() -> None:
    def rounds(tolerance: float) -> int:
        machine, rng = Machine(), np.random.default_rng(0)
        noisy = machine.model("noisy", lambda: 30 * rng.lognormal(sigma=0.1))
        timings = time_interleaved(
            {"noisy": noisy}, tolerance=tolerance, limit_seconds=1e6, clock=machine.clock
        )
        measured = timings.measurements["noisy"]
        low, high = measured.interval_ms
        assert measured.tight
        assert (high - low) / 2 <= tolerance * measured.median_ms
        return measured.runs

    assert rounds(0.1) < rounds(0.02) < rounds(0.01)


def test_the_time_limit_ends_what_is_never_tight() -> None:
    machine, rng = Machine(), np.random.default_rng(0)
    noisy = machine.model("noisy", lambda: 30 * rng.lognormal(sigma=1))
    timings = time_interleaved({"noisy": noisy}, tolerance=0.001, limit_seconds=5, clock=machine.clock)
    assert not timings.measurements["noisy"].tight
    assert 5 <= machine.now < 6


def test_a_slow_model_gets_its_six_rounds_beyond_the_limit() -> None:
    machine = Machine()
    timings = time_interleaved(
        {"slow": machine.model("slow", lambda: 4e3)}, limit_seconds=5, clock=machine.clock
    )
    assert timings.measurements["slow"].runs == FEWEST_ROUNDS
    assert len(machine.order) == 2 + FEWEST_ROUNDS  # no run is spent on the caches


def test_the_interval_covers_the_true_ratio_as_often_as_promised() -> None:
    """Stopping as soon as an interval is tight favours those that are so by chance; it must not cost much."""
    covered = tight = 0
    for seed in range(100):
        machine, rng = Machine(), np.random.default_rng(seed)
        timings = time_interleaved(
            {
                "small": machine.model("small", lambda rng=rng: 25 * rng.lognormal(sigma=0.05)),  # type: ignore[misc]  # binds the loop's value
                "dense": machine.model("dense", lambda rng=rng: 50 * rng.lognormal(sigma=0.05)),  # type: ignore[misc]  # as above
            },
            baseline="dense",
            tolerance=0.03,
            limit_seconds=1e6,
            clock=machine.clock,
        )
        low, high = timings.ratios["small"].interval
        tight += timings.ratios["small"].tight
        covered += low <= 0.5 <= high
    assert tight == 100
    # 95% but for the early end; three standard errors of a share of 100 are 7%.
    assert covered / 100 > 0.86


def test_a_neighbour_that_slows_the_smaller_model_more_is_left_out() -> None:
    """Half of the time the machine is busy, for seconds on end, and what fits into the caches loses more."""
    machine, rng = Machine(), np.random.default_rng(0)

    def takes(milliseconds: float, when_busy: float) -> Callable[[], float]:
        def draw() -> float:
            busy = machine.now % 8 < 4
            return milliseconds * (when_busy if busy else 1.0) * rng.lognormal(sigma=0.01)

        return draw

    timings = time_interleaved(
        {
            "small": machine.model("small", takes(20.0, when_busy=1.3)),
            "dense": machine.model("dense", takes(50.0, when_busy=1.1)),
        },
        baseline="dense",
        tolerance=0.001,
        limit_seconds=60,
        clock=machine.clock,
    )
    assert timings.ratios["small"].ratio == pytest.approx(0.4, rel=0.005)
    assert timings.measurements["small"].p90_ms > 25  # the times so far are reported all the same
