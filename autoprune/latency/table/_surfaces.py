"""Own surfaces: milliseconds of an operator over its (in size, out size), fitted to what was measured.

A surface has one grid for aligned sizes (see `grains`) and one for the others, along either axis; on each
grid milliseconds never fall where a size grows, and lie on bilinear pieces between the knots. Before:
`tabulate` measures; after: the table stores the grids, the predictor reads them.

    form = Form((Grain(align=4, step=16), Grain(step=16)), CUTS[0])
    fitted = fit_surfaces(readings, [form] * signatures)
    fitted[0].at(sizes)                    # float64 [n] for int64 sizes [n, 2]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.latency.table._alignment import Grain, Grains, effective, on_both
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.support.arrays import BoolArray, FloatArray, IntArray

CUTS: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (0.25, 1.0),
    (0.125, 0.25, 0.5, 1.0),
    (0.25, 0.5, 0.75, 1.0),
)
"""Where along an axis a surface may have its knots besides 0, as shares of the largest size."""

_OUTLYING = 0.1
"""Relative error from which on a reading loses weight, as one that something else disturbed."""

_REWEIGHTINGS = 3
"""Solutions of a robust fit."""


@dataclass(frozen=True)
class Form:
    """What is chosen of a surface before it is fitted.

    Attributes:
        grains: along the in size and along the out size.
        cuts: knots as shares of the largest size.
    """

    grains: Grains = (Grain(), Grain())
    cuts: tuple[float, ...] = CUTS[0]


@dataclass(frozen=True, eq=False)
class Surface:
    """The milliseconds of the operators of one signature.

    Attributes:
        grains: tell which grid a size belongs to, and where on it.
        knots: for the in size and the out size, float64 ascending from 0; [0] for an axis without a size.
        ms: float64 [2, 2, in knots, out knots]; the first two axes say whether in and out size are aligned.
        observed: bool [2, 2], which of these grids there were readings for. An axis without a size is
            aligned. Sizes of another kind are judged by the slowest grid of the most similar kind.
    """

    grains: Grains
    knots: tuple[FloatArray, FloatArray]
    ms: FloatArray
    observed: BoolArray

    def at(self, sizes: IntArray) -> FloatArray:
        """Return milliseconds [n] at sizes [n, 2]."""
        on, counting = effective(self.grains, sizes)
        first, second = on.astype(np.int64).T
        (low, share), (below, part) = (
            _place(knots, counting[:, axis]) for axis, knots in enumerate(self.knots)
        )
        high, above = (
            np.minimum(low + 1, len(self.knots[0]) - 1),
            np.minimum(below + 1, len(self.knots[1]) - 1),
        )
        grid = self.ms
        lower = (1 - part) * grid[first, second, low, below] + part * grid[first, second, low, above]
        upper = (1 - part) * grid[first, second, high, below] + part * grid[first, second, high, above]
        return np.asarray((1 - share) * lower + share * upper)

    def scaled(self, aligned: float, others: float) -> Surface:
        """Return the surface with the milliseconds of aligned sizes, and of others, times a factor each."""
        factors = np.full((2, 2, 1, 1), others)
        factors[1, 1] = aligned
        return replace(self, ms=self.ms * factors)


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

    def only(self, signatures: Sequence[int]) -> Readings:
        """Return the readings of the operators of some signatures, numbered anew in that order."""
        mine = np.isin(self.signature, signatures)
        numbers = np.array([list(signatures).index(each) for each in self.signature[mine].tolist()])
        return Readings(self.sizes[:, mine], self.ms[:, mine], self.whole_ms, numbers)


def fit_surfaces(readings: Readings, forms: Sequence[Form], *, robust: bool = True) -> list[Surface]:
    """Fit one surface a signature, by least squares of the error's share in the candidate's whole latency.

    Args:
        readings: what was measured.
        forms: one for each signature.
        robust: whether readings that lie far off lose weight, in three times the time.
    """
    weights = np.repeat(1 / readings.whole_ms[:, None], readings.ms.shape[1], axis=1)
    surfaces = []
    for number, form in enumerate(forms):
        mine = readings.signature == number
        sizes, ms = readings.sizes[:, mine].reshape(-1, 2), readings.ms[:, mine].ravel()
        surfaces.append(_fit(sizes, ms, weights[:, mine].ravel(), form, _REWEIGHTINGS if robust else 1))
    return surfaces


def sum_surfaces(surfaces: Sequence[Surface], sizes: IntArray, signature: IntArray) -> FloatArray:
    """Return the milliseconds [n] of all operators together, for sizes [n, operators, 2]."""
    total: FloatArray = sum_kinds(surfaces, sizes, signature).sum(axis=1)
    return total


def sum_kinds(surfaces: Sequence[Surface], sizes: IntArray, signature: IntArray) -> FloatArray:
    """Return the milliseconds [n, 2] of the operators whose sizes are aligned, and of the others."""
    total = np.zeros((len(sizes), 2))
    for number, surface in enumerate(surfaces):
        mine = sizes[:, signature == number]
        flat = mine.reshape(-1, 2)
        ms = surface.at(flat).reshape(mine.shape[:2])
        aligned = on_both(surface.grains, flat).all(axis=1).reshape(mine.shape[:2])
        total += np.stack([(ms * aligned).sum(axis=1), (ms * ~aligned).sum(axis=1)], axis=1)
    return total


def _fit(sizes: IntArray, ms: FloatArray, weights: FloatArray, form: Form, solutions: int) -> Surface:
    on, counting = effective(form.grains, sizes)
    knots = _knots(counting[:, 0], form.cuts), _knots(counting[:, 1], form.cuts)
    ramps = [_ramps(axis, counting[:, place]) for place, axis in enumerate(knots)]
    base = np.einsum("ni,nj->nij", *ramps).reshape(len(ms), -1)
    # Where a size is not aligned a surface is that of aligned ones and something more, a bilinear function.
    straight = [_straight(axis, counting[:, place]) for place, axis in enumerate(knots)]
    extra = np.einsum("ni,nj->nij", *straight).reshape(len(ms), -1)
    off = [(first, second) for first in (0, 1) for second in (0, 1) if not (first and second)]
    masks = [(on[:, 0] == first) & (on[:, 1] == second) for first, second in off]
    columns = np.concatenate([base, *(extra * mask[:, None] for mask in masks)], axis=1)
    solved = _solve(columns, ms, weights, solutions)
    increments = solved[: base.shape[1]].reshape(ramps[0].shape[1], ramps[1].shape[1])
    grid = np.repeat(increments.cumsum(0).cumsum(1)[None], 4, axis=0).reshape(2, 2, *increments.shape)
    corners = [_straight(axis, axis) for axis in knots]
    more = solved[base.shape[1] :].reshape(3, straight[0].shape[1], straight[1].shape[1])
    for (first, second), coefficients in zip(off, more, strict=True):
        grid[first, second] += corners[0] @ coefficients @ corners[1].T
    observed = observed_kinds(on)
    return Surface(form.grains, knots, _filled(grid, observed), observed)


def observed_kinds(on: BoolArray) -> BoolArray:
    """Tell [2, 2] whether there is a size of each kind, given which of the sizes [n, 2] are aligned."""
    observed = np.zeros((2, 2), dtype=np.bool_)
    observed[on[:, 0].astype(np.int64), on[:, 1].astype(np.int64)] = True
    return observed


def _filled(grid: FloatArray, observed: BoolArray) -> FloatArray:
    """Give kinds without readings, which the fit takes to be as fast as can be, the slowest of their like."""
    if observed.all():
        return grid
    filled = grid.copy()
    seen = np.argwhere(observed)
    for kind in np.argwhere(~observed):
        differing = np.abs(seen - kind).sum(axis=1)
        alike = seen[differing == differing.min()]
        filled[tuple(kind)] = grid[alike[:, 0], alike[:, 1]].max(axis=0)
    return filled


def _solve(columns: FloatArray, ms: FloatArray, weights: FloatArray, solutions: int) -> FloatArray:
    """Return non-negative coefficients; after each solution but the last, what lies far off loses weight."""
    largest = columns.max(axis=0)
    used_columns = largest > 0
    columns = columns[:, used_columns] / largest[used_columns]
    used = weights
    for _ in range(solutions):
        solved = solve_non_negative(columns * used[:, None], ms * used)
        error = np.abs(columns @ solved - ms) / np.maximum(ms, 1e-9)
        used = weights / np.sqrt(np.maximum(error / _OUTLYING, 1))
    coefficients = np.zeros(len(largest))
    coefficients[used_columns] = solved / largest[used_columns]
    return coefficients


def _knots(counting: IntArray, cuts: Sequence[float]) -> FloatArray:
    largest = float(counting.max())
    return np.array([0.0, *(cut * largest for cut in cuts)]) if largest > 0 else np.zeros(1)


def _ramps(knots: FloatArray, counting: IntArray) -> FloatArray:
    """Return [n, knots]: 1, then for each piece between knots how far along it a size is, in [0, 1]."""
    rising = np.clip((counting[:, None] - knots[:-1]) / np.diff(knots), 0, 1)
    return np.concatenate([np.ones((len(counting), 1)), rising], axis=1)


def _straight(knots: FloatArray, counting: NDArray[Any]) -> FloatArray:
    """Return [n, 2], or [n, 1] for an axis without a size: 1, then how far along the axis a size is."""
    ones = np.ones((len(counting), 1))
    return np.concatenate([ones, counting[:, None] / knots[-1]], axis=1) if len(knots) > 1 else ones


def _place(knots: FloatArray, counting: IntArray) -> tuple[IntArray, FloatArray]:
    """Return the knot below each size and how far it is to the next."""
    if len(knots) == 1:
        return np.zeros(len(counting), np.int64), np.zeros(len(counting))
    low = np.clip(np.searchsorted(knots, counting, side="right") - 1, 0, len(knots) - 2)
    share = (counting - knots[low]) / (knots[low + 1] - knots[low])
    return low, np.clip(share, 0, 1)
