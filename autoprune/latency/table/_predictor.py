"""Own the prediction: the milliseconds of candidates from their widths alone, many thousands at once.

Before: a table of the device; after: spaces and samplers use it like the exact cost formula.

    predict = LatencyPredictor(table)
    predict(widths)               # float64 [n] for int64 widths [n, groups]; never falls where a width grows
    predict.expected(widths)      # float64 [n]: the best guess, also off the stairs
    predict.error                 # 0.03: mean absolute relative error on candidates held out
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from autoprune.latency.table._latency_table import LatencyTable
from autoprune.latency.table._operators import Operator, sizes_of
from autoprune.latency.table._surfaces import Surface
from autoprune.support.arrays import FloatArray, IntArray

_CHUNK = 2048
"""Candidates predicted at once: bounds the memory, and keeps the work in the caches."""


class LatencyPredictor:
    """The latencies of candidates on the device of one table.

    A runtime may be slower at a width than at the next multiple of its step. What is called counts an
    operator at the fastest sizes that are at least its own, among those of a kind (aligned or not, along
    either axis) that it was measured at: the lower monotone envelope, which never falls where a width grows,
    is exact on the steps, and is too low off them by what a user gains who takes the next step up.

    Attributes:
        table: what was measured.
        dense_ms: the dense model's measured latency.
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
        """Return milliseconds [n] of widths [n, groups] that never fall where a width grows."""
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
        """Return the milliseconds [n] of the operators together."""
        sizes = self.sizes(widths)
        total: FloatArray = self.surface.at(sizes.reshape(-1, 2)).reshape(sizes.shape[:2]).sum(axis=1)
        return total

    def envelope(self, widths: IntArray) -> FloatArray:
        """Return the milliseconds [n] of the operators together, each at its fastest sizes from here on."""
        sizes = self.sizes(widths)
        flat = sizes.reshape(-1, 2)
        fastest = np.minimum.reduce(list(_alternatives(self.surface, flat)))
        total: FloatArray = fastest.reshape(sizes.shape[:2]).sum(axis=1)
        return total


def _alternatives(surface: Surface, sizes: IntArray) -> Iterator[FloatArray]:
    """Iterate over the milliseconds [n] at the next sizes of each kind that was observed.

    Milliseconds rise along each grid, so the next size on a grid is the fastest there.
    """
    for kind in np.argwhere(surface.observed).astype(bool).tolist():
        following = [
            grain.nearest(sizes[:, axis], aligned=aligned)
            for axis, (grain, aligned) in enumerate(zip(surface.grains, kind, strict=True))
        ]
        yield surface.at(np.stack(following, axis=1))
