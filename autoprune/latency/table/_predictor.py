"""Predict the milliseconds of candidates from their widths alone, for thousands of candidates at once.

Spaces and samplers use the predictor like the exact cost formula.

Example:
    predict = LatencyPredictor(table)
    predict(widths)               # float64 [n] for int64 widths [n, groups]; never falls when a width grows
    predict.expected(widths)      # float64 [n]: the best estimate
    predict.error                 # 0.03: mean absolute relative error on held-out candidates
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from autoprune.latency.table._latency_table import LatencyTable
from autoprune.latency.table._operators import Operator, sizes_of
from autoprune.latency.table._surfaces import Surface
from autoprune.support.arrays import FloatArray, IntArray

_CHUNK = 2048
"""Number of candidates predicted at once, which bounds the memory and keeps the arrays in the caches."""


class LatencyPredictor:
    """Predicts latencies of candidates on the device of one table.

    A runtime may be slower at a width than at the next multiple of its step, but a budget needs a cost that
    never falls when a width grows. So a call returns the lower monotone envelope: an operator takes the time
    of the fastest sizes that are at least its own, among the kinds of sizes (aligned or not along either
    axis) at which it was measured. The envelope is exact at multiples of the step. Elsewhere it is too low by
    the time that the next larger multiple would save.

    Attributes:
        table: the measured table.
        dense_ms: measured latency of the dense model.
        error: mean absolute relative error of `expected` on candidates that took no part in the fit.
    """

    def __init__(self, table: LatencyTable) -> None:
        self.table = table
        self.dense_ms = table.dense_ms
        self.error = table.calibration.error
        by_signature: dict[str, list[Operator]] = {}
        for operator in table.operators:
            by_signature.setdefault(operator.signature, []).append(operator)
        self._parts = [
            _Part(table.surfaces[signature], operators, table.groups)
            for signature, operators in by_signature.items()
        ]

    def __call__(self, widths: IntArray) -> FloatArray:
        """Return milliseconds [n] of widths [n, groups] that never fall when a width grows."""
        return self._sum(widths, _Part.envelope)

    def expected(self, widths: IntArray) -> FloatArray:
        """Return the expected milliseconds [n] of widths [n, groups]."""
        return self._sum(widths, _Part.exact)

    def _sum(self, widths: IntArray, milliseconds: Callable[[_Part, IntArray], FloatArray]) -> FloatArray:
        total = np.zeros(len(widths))
        for start in range(0, len(widths), _CHUNK):
            chunk = widths[start : start + _CHUNK]
            for part in self._parts:
                total[start : start + _CHUNK] += milliseconds(part, chunk)
        return self.table.calibration.constant_ms + total


class _Part:
    """The operators of one signature."""

    def __init__(self, surface: Surface, operators: Sequence[Operator], groups: int) -> None:
        self.surface = surface
        self.sizes = sizes_of(operators, groups)

    def exact(self, widths: IntArray) -> FloatArray:
        """Return the milliseconds [n] of all operators of the signature together."""
        sizes = self.sizes(widths)
        total: FloatArray = self.surface.at(sizes.reshape(-1, 2)).reshape(sizes.shape[:2]).sum(axis=1)
        return total

    def envelope(self, widths: IntArray) -> FloatArray:
        """Return the milliseconds [n] of all operators, each at the fastest sizes not below its own."""
        sizes = self.sizes(widths)
        flat = sizes.reshape(-1, 2)
        fastest = np.minimum.reduce(list(_alternatives(self.surface, flat)))
        total: FloatArray = fastest.reshape(sizes.shape[:2]).sum(axis=1)
        return total


def _alternatives(surface: Surface, sizes: IntArray) -> Iterator[FloatArray]:
    """Iterate over the milliseconds [n] at the next larger sizes of each kind that was observed.

    Milliseconds never fall along a grid, so the next size on a grid is the fastest one there.
    """
    for kind in np.argwhere(surface.observed).astype(bool).tolist():
        following = [
            alignment.nearest(sizes[:, axis], aligned=aligned)
            for axis, (alignment, aligned) in enumerate(zip(surface.alignments, kind, strict=True))
        ]
        yield surface.at(np.stack(following, axis=1))
