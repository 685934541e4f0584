"""Own surfaces: milliseconds of an operator over its (in size, out size), fitted to what was measured.

Runtimes have stairs: sizes that are multiples of some number run through faster kernels, and those kernels
round up to a step. So a surface has one grid for sizes on the multiple and one for those off it, along
either axis; on each grid milliseconds never fall where a size grows, and lie on bilinear pieces between the
knots. Before: `tabulate` measures; after: the table stores the grids, the predictor reads them.

    fitted = fit_surfaces(readings, Grain(align=4, step=16), CUTS[0])
    fitted[0].at(sizes)                    # float64 [n] for int64 sizes [n, 2]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

CUTS: tuple[tuple[float, ...], ...] = ((1.0,), (0.25, 1.0), (0.125, 0.25, 0.5, 1.0))
"""Where along an axis a surface may have its knots besides 0, as shares of the largest size."""

_OUTLYING = 0.1
"""Relative error from which on a reading loses weight, as one that something else disturbed."""

_REWEIGHTINGS = 3


@dataclass(frozen=True)
class Grain:
    """How a runtime treats sizes.

    Attributes:
        align: sizes that are multiples of it run through other kernels than the rest; 1: all are alike.
        step: sizes on `align` count as rounded up to a multiple of it.
    """

    align: int = 1
    step: int = 1

    def on(self, sizes: IntArray) -> NDArray[np.bool_]:
        """Tell which sizes lie on the multiple."""
        on: NDArray[np.bool_] = sizes % self.align == 0
        return on

    def effective(self, sizes: IntArray) -> IntArray:
        """Return the sizes that count."""
        return np.where(self.on(sizes), -(-sizes // self.step) * self.step, sizes)


@dataclass(frozen=True, eq=False)
class Surface:
    """The milliseconds of the operators of one signature.

    Attributes:
        grain: tells which grid a size belongs to, and where on it.
        knots: for the in size and the out size, float64 ascending from 0; [0] for an axis without a size.
        ms: float64 [2, 2, in knots, out knots]; the first two axes say whether in and out size lie on the
            multiple.
    """

    grain: Grain
    knots: tuple[FloatArray, FloatArray]
    ms: FloatArray

    def at(self, sizes: IntArray) -> FloatArray:
        """Return milliseconds [n] at sizes [n, 2]."""
        on = self.grain.on(sizes).astype(np.int64)
        return self.on_grid(on[:, 0], on[:, 1], self.grain.effective(sizes).astype(np.float64))

    def on_grid(self, first: IntArray, second: IntArray, effective: FloatArray) -> FloatArray:
        """Return milliseconds [n] on the grids [first, second] [n] at effective sizes [n, 2]."""
        (low, share), (below, part) = (
            _place(knots, effective[:, axis]) for axis, knots in enumerate(self.knots)
        )
        high, above = (
            np.minimum(low + 1, len(self.knots[0]) - 1),
            np.minimum(below + 1, len(self.knots[1]) - 1),
        )
        grid = self.ms
        lower = (1 - part) * grid[first, second, low, below] + part * grid[first, second, low, above]
        upper = (1 - part) * grid[first, second, high, below] + part * grid[first, second, high, above]
        return np.asarray((1 - share) * lower + share * upper)


@dataclass(frozen=True, eq=False)
class Readings:
    """What was measured.

    Attributes:
        sizes: int64 [candidates, operators, 2]; 0 where an operator has fewer sizes.
        ms: float64 [candidates, operators].
        whole_ms: float64 [candidates], of whole forward passes.
        signature: int64 [operators], the number of each operator's signature.
    """

    sizes: IntArray
    ms: FloatArray
    whole_ms: FloatArray
    signature: IntArray

    def part(self, rows: NDArray[Any]) -> Readings:
        """Return the readings of some of the candidates."""
        return Readings(self.sizes[rows], self.ms[rows], self.whole_ms[rows], self.signature)


def fit_surfaces(readings: Readings, grain: Grain, cuts: Sequence[float]) -> list[Surface]:
    """Fit one surface a signature, by least squares of the error's share in the candidate's whole latency.

    Args:
        readings: what was measured.
        grain: of the runtime.
        cuts: knots as shares of the largest size.
    """
    weights = np.repeat(1 / readings.whole_ms[:, None], readings.ms.shape[1], axis=1)
    return [
        _fit(
            readings.sizes[:, mine].reshape(-1, 2),
            readings.ms[:, mine].ravel(),
            weights[:, mine].ravel(),
            grain,
            cuts,
        )
        for mine in (readings.signature == number for number in range(int(readings.signature.max()) + 1))
    ]


def sum_surfaces(surfaces: Sequence[Surface], sizes: IntArray, signature: IntArray) -> FloatArray:
    """Return the milliseconds [n] of all operators together, for sizes [n, operators, 2]."""
    total = np.zeros(len(sizes))
    for number, surface in enumerate(surfaces):
        mine = sizes[:, signature == number]
        total += surface.at(mine.reshape(-1, 2)).reshape(mine.shape[:2]).sum(axis=1)
    return total


def _fit(
    sizes: IntArray, ms: FloatArray, weights: FloatArray, grain: Grain, cuts: Sequence[float]
) -> Surface:
    on = grain.on(sizes)
    effective = grain.effective(sizes).astype(np.float64)
    knots = _knots(effective[:, 0], cuts), _knots(effective[:, 1], cuts)
    ramps = [_ramps(axis, effective[:, place]) for place, axis in enumerate(knots)]
    base = np.einsum("ni,nj->nij", *ramps).reshape(len(ms), -1)
    # Off the multiple a surface is the one on them and something more, a bilinear function.
    straight = [
        _ramps(axis[[0, -1]] if len(axis) > 1 else axis, effective[:, i]) for i, axis in enumerate(knots)
    ]
    extra = np.einsum("ni,nj->nij", *straight).reshape(len(ms), -1)
    off = [(first, second) for first in (0, 1) for second in (0, 1) if not (first and second)]
    masks = [(on[:, 0] == first) & (on[:, 1] == second) for first, second in off]
    columns = np.concatenate([base, *(extra * mask[:, None] for mask in masks)], axis=1)
    solved = _solve(columns, ms, weights)
    increments = solved[: base.shape[1]].reshape(ramps[0].shape[1], ramps[1].shape[1])
    grid = np.repeat(increments.cumsum(0).cumsum(1)[None], 4, axis=0).reshape(2, 2, *increments.shape)
    corners = [_ramps(axis[[0, -1]] if len(axis) > 1 else axis, axis) for axis in knots]
    more = solved[base.shape[1] :].reshape(3, straight[0].shape[1], straight[1].shape[1])
    for (first, second), coefficients in zip(off, more, strict=True):
        grid[first, second] += corners[0] @ coefficients @ corners[1].T
    return Surface(grain, knots, grid)


def _solve(columns: FloatArray, ms: FloatArray, weights: FloatArray) -> FloatArray:
    """Return non-negative coefficients, after readings that lie far off have lost weight."""
    scale = np.maximum(np.abs(columns).max(axis=0), 1e-12)
    columns = columns / scale
    used = weights
    for _ in range(_REWEIGHTINGS):
        solved, _ = nnls(columns * used[:, None], ms * used)
        error = np.abs(columns @ solved - ms) / np.maximum(ms, 1e-9)
        used = weights / np.sqrt(np.maximum(error / _OUTLYING, 1))
    return np.asarray(solved / scale)


def _knots(effective: FloatArray, cuts: Sequence[float]) -> FloatArray:
    largest = float(effective.max())
    return np.array([0.0, *(cut * largest for cut in cuts)]) if largest > 0 else np.zeros(1)


def _ramps(knots: FloatArray, effective: FloatArray) -> FloatArray:
    """Return [n, knots]: 1, then for each piece between knots how far along it a size is, in [0, 1]."""
    rising = np.clip((effective[:, None] - knots[:-1]) / np.diff(knots), 0, 1)
    return np.concatenate([np.ones((len(effective), 1)), rising], axis=1)


def _place(knots: FloatArray, effective: FloatArray) -> tuple[IntArray, FloatArray]:
    """Return the knot below each size and how far it is to the next."""
    if len(knots) == 1:
        return np.zeros(len(effective), np.int64), np.zeros(len(effective))
    low = np.clip(np.searchsorted(knots, effective, side="right") - 1, 0, len(knots) - 2)
    share = (effective - knots[low]) / (knots[low + 1] - knots[low])
    return low, np.clip(share, 0, 1)
