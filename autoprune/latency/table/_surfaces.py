"""Fit surfaces: the milliseconds of an operator as a function of its input and output size.

A surface has four grids, one for each combination of aligned and other sizes along the two axes. On each grid
milliseconds are bilinear between the knots and never fall when a size grows.

Example:
    form = Form((Alignment(align=4, step=16), Alignment(step=16)), CUTS[0])
    fitted = fit_surfaces(readings, [form] * signatures)
    fitted[0].at(sizes)                    # float64 [n] for int64 sizes [n, 2]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoprune.latency.table._alignment import Alignment, Alignments, aligned_axes, effective_sizes
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.support.arrays import BoolArray, FloatArray, IntArray

CUTS: tuple[tuple[float, ...], ...] = (
    (1.0,),
    (0.25, 1.0),
    (0.125, 0.25, 0.5, 1.0),
    (0.25, 0.5, 0.75, 1.0),
)
"""Choices of the knots along an axis in addition to 0, as shares of the largest size."""

_OUTLYING = 0.1
"""A reading with a larger relative error loses weight, since other load probably disturbed it."""

_REWEIGHTINGS = 3
"""Number of solutions in a robust fit."""


@dataclass(frozen=True)
class Form:
    """The form of a surface, which is chosen before its grids are fitted.

    Attributes:
        alignments: alignment along the input size and along the output size.
        cuts: knots as shares of the largest size.
    """

    alignments: Alignments = (Alignment(), Alignment())
    cuts: tuple[float, ...] = CUTS[0]


@dataclass(frozen=True, eq=False)
class Surface:
    """The milliseconds of the operators of one signature.

    Attributes:
        alignments: alignment along the input size and along the output size.
        knots: float64 knots along the input size and along the output size, ascending from 0, or [0] for an
            axis without a size.
        ms: float64 [2, 2, input knots, output knots], the milliseconds at the knots. The first two indices
            are 1 if the input size, or the output size, is aligned.
        observed: bool [2, 2], the grids with readings. An axis without a size counts as aligned. A grid
            without readings is the slowest one of the most similar grids with readings.
    """

    alignments: Alignments
    knots: tuple[FloatArray, FloatArray]
    ms: FloatArray
    observed: BoolArray

    def at(self, sizes: IntArray) -> FloatArray:
        """Return milliseconds [n] at sizes [n, 2]."""
        aligned, effective = effective_sizes(self.alignments, sizes)
        first, second = aligned.astype(np.int64).T
        (low, share), (below, part) = (
            _place(knots, effective[:, axis]) for axis, knots in enumerate(self.knots)
        )
        high, above = (
            np.minimum(low + 1, len(self.knots[0]) - 1),
            np.minimum(below + 1, len(self.knots[1]) - 1),
        )
        grid = self.ms  # interpolated between the four knots around each size
        lower = (1 - part) * grid[first, second, low, below] + part * grid[first, second, low, above]
        upper = (1 - part) * grid[first, second, high, below] + part * grid[first, second, high, above]
        return np.asarray((1 - share) * lower + share * upper)

    def scaled(self, aligned: float, others: float) -> Surface:
        """Return the surface with one factor for sizes that are both aligned, and another for the rest."""
        factors = np.full((2, 2, 1, 1), others)
        factors[1, 1] = aligned
        return replace(self, ms=self.ms * factors)


@dataclass(frozen=True, eq=False)
class Readings:
    """The times of candidates and their operators.

    Attributes:
        sizes: int64 [candidates, operators, 2], with 0 if an operator has fewer sizes.
        ms: float64 [candidates, operators], milliseconds of the operators.
        whole_ms: float64 [candidates], milliseconds of whole forward passes.
        signature: int64 [operators], number of each operator's signature.
    """

    sizes: IntArray
    ms: FloatArray
    whole_ms: FloatArray
    signature: IntArray

    def part(self, rows: NDArray[Any]) -> Readings:
        """Return the readings of some of the candidates."""
        return Readings(self.sizes[rows], self.ms[rows], self.whole_ms[rows], self.signature)

    def only(self, signatures: Sequence[int]) -> Readings:
        """Return the readings of some signatures' operators, with the signatures numbered in this order."""
        mine = np.isin(self.signature, signatures)
        numbers = np.array([list(signatures).index(each) for each in self.signature[mine].tolist()])
        return Readings(self.sizes[:, mine], self.ms[:, mine], self.whole_ms, numbers)


def fit_surfaces(readings: Readings, forms: Sequence[Form], *, robust: bool = True) -> list[Surface]:
    """Fit a surface for each signature by least squares.

    The errors are weighted as shares of the candidate's whole latency.

    Args:
        readings: the timed candidates.
        forms: form of each signature.
        robust: whether outlying readings lose weight, which takes three times as long.
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
    """Return the milliseconds [n, 2] of the operators with both sizes aligned, and of the others."""
    total = np.zeros((len(sizes), 2))
    for number, surface in enumerate(surfaces):
        mine = sizes[:, signature == number]
        flat = mine.reshape(-1, 2)
        ms = surface.at(flat).reshape(mine.shape[:2])
        aligned = aligned_axes(surface.alignments, flat).all(axis=1).reshape(mine.shape[:2])
        total += np.stack([(ms * aligned).sum(axis=1), (ms * ~aligned).sum(axis=1)], axis=1)
    return total


def _fit(sizes: IntArray, ms: FloatArray, weights: FloatArray, form: Form, solutions: int) -> Surface:
    aligned, effective = effective_sizes(form.alignments, sizes)
    knots = _knots(effective[:, 0], form.cuts), _knots(effective[:, 1], form.cuts)
    # The coefficients are increments between neighbouring knots. None is negative, so the grid, which is
    # their cumulative sum along both axes, never falls when a size grows.
    ramps = [_ramps(axis, effective[:, place]) for place, axis in enumerate(knots)]
    base = np.einsum("ni,nj->nij", *ramps).reshape(len(ms), -1)
    # A grid of sizes that are not aligned is the aligned grid plus a bilinear function with non-negative
    # coefficients. So it is never faster, and few readings suffice to fit it.
    straight = [_straight(axis, effective[:, place]) for place, axis in enumerate(knots)]
    extra = np.einsum("ni,nj->nij", *straight).reshape(len(ms), -1)
    off = [(first, second) for first in (0, 1) for second in (0, 1) if not (first and second)]
    masks = [(aligned[:, 0] == first) & (aligned[:, 1] == second) for first, second in off]
    columns = np.concatenate([base, *(extra * mask[:, None] for mask in masks)], axis=1)
    solved = _solve(columns, ms, weights, solutions)
    increments = solved[: base.shape[1]].reshape(ramps[0].shape[1], ramps[1].shape[1])
    grid = np.repeat(increments.cumsum(0).cumsum(1)[None], 4, axis=0).reshape(2, 2, *increments.shape)
    corners = [_straight(axis, axis) for axis in knots]
    more = solved[base.shape[1] :].reshape(3, straight[0].shape[1], straight[1].shape[1])
    for (first, second), coefficients in zip(off, more, strict=True):
        grid[first, second] += corners[0] @ coefficients @ corners[1].T
    observed = observed_kinds(aligned)
    return Surface(form.alignments, knots, _filled(grid, observed), observed)


def observed_kinds(aligned: BoolArray) -> BoolArray:
    """Return bool [2, 2], the kinds of sizes that occur, given which of the sizes [n, 2] are aligned."""
    observed = np.zeros((2, 2), dtype=np.bool_)
    observed[aligned[:, 0].astype(np.int64), aligned[:, 1].astype(np.int64)] = True
    return observed


def _filled(grid: FloatArray, observed: BoolArray) -> FloatArray:
    """Replace each grid without readings by the slowest of the most similar grids with readings.

    The fit alone would make it as fast as the aligned grid.
    """
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
    """Return non-negative coefficients, by iteratively reweighted least squares if `solutions` > 1."""
    largest = columns.max(axis=0)
    used_columns = largest > 0
    columns = columns[:, used_columns] / largest[used_columns]
    used = weights
    for _ in range(solutions):
        solved = solve_non_negative(columns * used[:, None], ms * used)
        error = np.abs(columns @ solved - ms) / np.maximum(ms, 1e-9)
        # Huber's weights: beyond the threshold, a reading counts in proportion to 1 / error. The square
        # root is taken because the solver squares the rows.
        used = weights / np.sqrt(np.maximum(error / _OUTLYING, 1))
    coefficients = np.zeros(len(largest))
    coefficients[used_columns] = solved / largest[used_columns]
    return coefficients


def _knots(effective: IntArray, cuts: Sequence[float]) -> FloatArray:
    largest = float(effective.max())
    return np.array([0.0, *(cut * largest for cut in cuts)]) if largest > 0 else np.zeros(1)


def _ramps(knots: FloatArray, effective: IntArray) -> FloatArray:
    """Return [n, knots]: a 1, then for each piece between knots the share of it below the size, in [0, 1]."""
    rising = np.clip((effective[:, None] - knots[:-1]) / np.diff(knots), 0, 1)
    return np.concatenate([np.ones((len(effective), 1)), rising], axis=1)


def _straight(knots: FloatArray, effective: NDArray[Any]) -> FloatArray:
    """Return [n, 2]: a 1, then the size over the last knot. An axis without a size has only a 1."""
    ones = np.ones((len(effective), 1))
    return np.concatenate([ones, effective[:, None] / knots[-1]], axis=1) if len(knots) > 1 else ones


def _place(knots: FloatArray, effective: IntArray) -> tuple[IntArray, FloatArray]:
    """Return the index of the knot below each size, and the position between it and the next, in [0, 1]."""
    if len(knots) == 1:
        return np.zeros(len(effective), np.int64), np.zeros(len(effective))
    low = np.clip(np.searchsorted(knots, effective, side="right") - 1, 0, len(knots) - 2)
    share = (effective - knots[low]) / (knots[low + 1] - knots[low])
    return low, np.clip(share, 0, 1)
