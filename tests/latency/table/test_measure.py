"""Tables of machines whose speed is known: shares of the dense model, in milliseconds that are medians."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch

import autoprune
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting
from autoprune.latency.table import LatencyPredictor
from autoprune.latency.table._experiment_design import LEVELS_WHOLE
from autoprune.latency.table._interleaved import RelativeTimes
from autoprune.latency.table._measure import _operator_ms, tabulate
from autoprune.latency.table._profiles import Profiler, ReadyCandidate, make_profiler
from tests.latency.nets import four_layers
from tests.latency.table.told import CONSTANT_MS, operator_ms, told_table

SETTING = LatencySetting()


@pytest.fixture(scope="module")
def prunable() -> Prunable:
    return autoprune.trace(four_layers(), torch.zeros(1, 1, 8, 8))


def exact_ms(prunable: Prunable, widths: np.ndarray) -> np.ndarray:
    """Return the times of candidates on a machine without noise: a constant, and a time per MAC."""
    milliseconds: np.ndarray = 0.1 + 1e-6 * np.asarray(prunable.cost(np.atleast_2d(widths)).macs)
    return milliseconds


def machine(prunable: Prunable, slowness: Callable[[], float]) -> Profiler:
    """Return a profiler that times whole passes on a machine that is so slow, now and then."""

    @contextlib.contextmanager
    def opened(widths: np.ndarray) -> Iterator[ReadyCandidate]:
        milliseconds = float(exact_ms(prunable, widths)[0])
        yield ReadyCandidate(lambda: milliseconds * slowness())

    return Profiler(make_profiler(prunable, SETTING).found, opened, times_operators=False)


def random_widths(prunable: Prunable, count: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    widths = np.array([[group.width for group in prunable.groups]] * count, dtype=np.int64)
    for group in prunable.searchable:
        widths[:, prunable.position[group.name]] = rng.integers(1, group.width + 1, count)
    return widths


def test_milliseconds_are_medians_and_candidates_shares_of_the_dense_model(prunable: Prunable) -> None:
    """Half of the passes are late by ln 2 / 3 and more: medians say so, means of the faster half less."""
    rng = np.random.default_rng(0)
    table = tabulate(
        prunable,
        SETTING,
        machine(prunable, lambda: 1 + rng.exponential(1 / 3)),
        limit_seconds=0.0,
        levels=None,
        progress=None,
    )
    dense = exact_ms(prunable, np.array([group.width for group in prunable.groups]))[0]
    # The median of a thousand runs has a standard error of 1%, of which a turn's are averaged.
    assert table.dense_ms == pytest.approx(dense * (1 + math.log(2) / 3), rel=0.02)
    widths = random_widths(prunable, 20)
    predicted = LatencyPredictor(table).expected(widths) / table.dense_ms
    np.testing.assert_allclose(predicted, exact_ms(prunable, widths) / dense, rtol=0.04)


def test_candidates_that_are_timed_whole_are_fewer(prunable: Prunable) -> None:
    calls: list[tuple[int, int]] = []
    table = tabulate(
        prunable,
        SETTING,
        machine(prunable, lambda: 1.0),
        limit_seconds=0.0,
        levels=None,
        progress=lambda done, total: calls.append((done, total)),
    )
    candidates = LEVELS_WHOLE**2 + 2 * LEVELS_WHOLE + 1
    assert table.calibration.candidates == candidates
    assert calls == [(done, candidates) for done in range(1, candidates + 1)]


def test_the_first_round_shows_how_many_there_will_be(prunable: Prunable) -> None:
    calls: list[tuple[int, int]] = []
    tabulate(
        prunable,
        SETTING,
        machine(prunable, lambda: 1.0),
        limit_seconds=1e6,
        levels=2,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls == [(done, 9 if done <= 9 else 45) for done in range(1, 46)]


def relative_times(operators: np.ndarray, events: np.ndarray, whole: float) -> list[RelativeTimes]:
    return [RelativeTimes(whole, 1.0, operators, events)] * 3


def test_the_time_that_noting_adds_is_subtracted() -> None:
    """Each noted time adds 2 microseconds; candidates fuse some of their nodes, others do not."""
    rng = np.random.default_rng(0)
    exact = rng.uniform(0.05, 0.3, (40, 3))
    events = rng.integers(1, 6, (40, 3))
    whole_ms = 0.1 + 1.2 * exact.sum(axis=1)
    noted = (exact + 0.002 * events) / 2.0
    times = [relative_times(*row) for row in zip(noted, events, whole_ms / 2.0, strict=True)]
    found = _operator_ms(times, 2.0, whole_ms)
    assert found is not None
    np.testing.assert_allclose(found, exact, atol=1e-6)


def test_nothing_is_subtracted_if_all_candidates_note_as_many_times() -> None:
    exact = np.random.default_rng(0).uniform(0.05, 0.3, (10, 3))
    times = [relative_times(row, np.array([1, 2, 1]), 1.0) for row in exact]
    found = _operator_ms(times, 3.0, np.full(10, 3.0))
    assert found is not None
    np.testing.assert_allclose(found, 3.0 * exact)


def test_a_probe_without_operators_has_no_operator_times() -> None:
    assert _operator_ms([[RelativeTimes(1.0, 1.0)], [RelativeTimes(0.5, 1.0)]], 1.0, np.ones(2)) is None


def test_the_median_round_of_an_operator_counts() -> None:
    rounds = [RelativeTimes(1.0, 1.0, np.array([share]), np.array([1])) for share in (0.5, 9.0, 0.4)]
    found = _operator_ms([rounds], 2.0, np.ones(1))
    assert found is not None
    np.testing.assert_allclose(found, [[1.0]])


def test_known_operator_times_make_a_table(prunable: Prunable) -> None:
    table = told_table(prunable, SETTING)
    widths = random_widths(prunable, 20)
    operators = make_profiler(prunable, SETTING).found.operators
    exact = [CONSTANT_MS + operator_ms(operators, row).sum() for row in widths]
    np.testing.assert_allclose(LatencyPredictor(table).expected(widths), exact, rtol=0.02)
    assert table.calibration.candidates == 64
