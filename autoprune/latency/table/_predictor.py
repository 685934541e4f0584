"""Predict the milliseconds of candidates from their widths alone, for thousands of candidates at once.

Spaces and samplers use the predictor like the exact cost formula.

Example:
    predict = LatencyPredictor(table)
    predict(widths)               # float64 [n] for int64 widths [n, groups]; never falls when a width grows
    # If the predictor knows the blocks of the model, their columns may follow: 0 for a dropped block.
    predict.expected(widths)      # float64 [n]: the best estimate
    predict.error                 # 0.03: mean absolute relative error on held-out candidates
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from autoprune.graph import Block
from autoprune.latency.table._latency_table import LatencyTable
from autoprune.latency.table._operators import Operator, sizes_of
from autoprune.latency.table._surfaces import Surface
from autoprune.support.arrays import BoolArray, FloatArray, IntArray

_CHUNK = 2048
"""Number of candidates predicted at once, which bounds the memory and keeps the arrays in the caches."""


class LatencyPredictor:
    """Predicts latencies of candidates on the device of one table.

    A runtime may be slower at a width than at the next multiple of its step, but a budget needs a cost that
    never falls when a width grows. So a call returns the lower monotone envelope: an operator takes the time
    of the fastest sizes that are at least its own. Only sizes of a kind (aligned or not along either axis) at
    which the operator was measured count. The envelope is exact at multiples of the step. Elsewhere it is
    too low by the time that the next larger multiple would save.

    The operators of a dropped block take no time. These are the operators of its layers, and those without a
    weight that run between them.

    Args:
        table: the measured table.
        blocks: the blocks of the model that may be dropped.

    Attributes:
        table: the measured table.
        dense_ms: measured latency of the dense model.
        error: mean absolute relative error of `expected` on candidates that took no part in the fit.
    """

    def __init__(self, table: LatencyTable, blocks: Sequence[Block] = ()) -> None:
        self.table = table
        self.dense_ms = table.dense_ms
        self.error = table.calibration.error
        by_signature: dict[str, list[int]] = {}
        for place, operator in enumerate(table.operators):
            by_signature.setdefault(operator.signature, []).append(place)
        inside = _inside(table.operators, blocks)
        self._parts = [
            _Part(
                table.surfaces[signature],
                [table.operators[place] for place in places],
                table.groups,
                inside[places],
            )
            for signature, places in by_signature.items()
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

    def __init__(
        self, surface: Surface, operators: Sequence[Operator], groups: int, inside: BoolArray
    ) -> None:
        self.surface = surface
        self._groups = groups
        self._inside = inside.astype(np.int64)
        self.sizes = sizes_of(operators, groups)

    def exact(self, widths: IntArray) -> FloatArray:
        """Return the milliseconds [n] of all operators of the signature together."""
        sizes = self.sizes(widths[:, : self._groups])
        return self._total(self.surface.at(sizes.reshape(-1, 2)).reshape(sizes.shape[:2]), widths)

    def envelope(self, widths: IntArray) -> FloatArray:
        """Return the milliseconds [n] of all operators, each at the fastest sizes not below its own."""
        sizes = self.sizes(widths[:, : self._groups])
        fastest = np.minimum.reduce(list(_alternatives(self.surface, sizes.reshape(-1, 2))))
        return self._total(fastest.reshape(sizes.shape[:2]), widths)

    def _total(self, milliseconds: FloatArray, widths: IntArray) -> FloatArray:
        """Add up the milliseconds [n, operators] of those operators whose blocks are all kept."""
        kept = widths[:, self._groups :]
        if kept.shape[1]:
            # The product counts, for each operator, the dropped blocks that hold it.
            milliseconds = milliseconds * ((1 - kept) @ self._inside.T == 0)
        total: FloatArray = milliseconds.sum(axis=1)
        return total


def _inside(operators: Sequence[Operator], blocks: Sequence[Block]) -> BoolArray:
    """Return which operators belong to which blocks, bool [operators, blocks]."""
    found = np.zeros((len(operators), len(blocks)), dtype=np.bool_)
    for column, block in enumerate(blocks):
        paths = tuple(f"{each.path}." for each in block.stand_ins)
        layers = [place for place, operator in enumerate(operators) if f"{operator.name}.".startswith(paths)]
        found[layers, column] = True
        for place in range(layers[0], layers[-1]) if layers else ():
            found[place, column] |= operators[place].layer is None
    return found


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
