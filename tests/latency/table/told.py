"""A machine whose speed is known: it makes a latency table without a clock.

Example:
    table = told_table(prunable, LatencySetting("onnx"), levels=3)
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import numpy as np

from autoprune.graph import Prunable
from autoprune.latency import LatencySetting
from autoprune.latency.table import LatencyTable
from autoprune.latency.table._measure import tabulate
from autoprune.latency.table._operators import Operator
from autoprune.latency.table._profiles import Profile, Profiler, ReadyCandidate, make_profiler

CONSTANT_MS = 0.05
"""Time of a pass in addition to its operators."""


def operator_ms(operators: Sequence[Operator], widths: np.ndarray) -> np.ndarray:
    """Return the times [operators] of a candidate: each takes the time of the product of its sizes."""
    sizes = [np.prod([float(size.at(widths)) for size in each.sizes]) for each in operators]
    return np.array([1e-3 + 1e-5 * product for product in sizes])


def told_table(prunable: Prunable, setting: LatencySetting, levels: int | None = None) -> LatencyTable:
    """Make the table of a machine on which a pass takes the sum of its operators and a constant."""
    found = make_profiler(prunable, LatencySetting()).found

    @contextlib.contextmanager
    def opened(widths: np.ndarray) -> Iterator[ReadyCandidate]:
        row = operator_ms(found.operators, widths)
        passes: list[np.ndarray] = []

        def run() -> float:
            passes.append(row)
            return float(CONSTANT_MS + row.sum())

        yield ReadyCandidate(run, run, lambda: Profile(np.array(passes), np.ones(len(row), np.int64)))

    profiler = Profiler(found, opened)
    return tabulate(prunable, setting, profiler, limit_seconds=0.0, levels=levels, progress=None)
