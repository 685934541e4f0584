"""Operator work: the MACs and the memory traffic of each operator, for probes that time only whole passes.

The latency of a pass is modelled as a sum of a few terms over all operators, each with a fitted coefficient.

Example:
    surfaces = fit_operator_work(readings, [form] * len(works), works)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoprune.latency.table._alignment import effective_sizes
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.latency.table._operators import MOST_SIZES, Call, Number, Share
from autoprune.latency.table._surfaces import Form, Readings, Surface, observed_kinds
from autoprune.support.arrays import BoolArray, FloatArray

Work: TypeAlias = Sequence[tuple[Call, Sequence[Number]]]
"""The calls of an operator, each with its numbers."""

_KINDS = ("single", "pointwise", "spatial")
"""Kinds of contractions: of a single size (depthwise, first or last layer), 1x1 or linear, and all others."""

_KIND_TERMS = ("macs", "activations", "macs, input off", "macs, output off")

TERMS = ("weights", "activations", *itertools.product(_KINDS, _KIND_TERMS))
"""Terms of the latency of a pass, in addition to a constant. "off" means that the size is not aligned."""

_KNOTS = (0.0, 0.125, 0.25, 0.5, 1.0)
"""Knots of the surfaces, as shares of the largest size."""


def fit_operator_work(readings: Readings, forms: Sequence[Form], works: Sequence[Work]) -> list[Surface]:
    """Fit the terms to whole passes, and return the surface that follows for each signature.

    Args:
        readings: the timed candidates. Their `ms` are not used.
        forms: form of each signature. Their cuts are not used, since no knots are fitted.
        works: work of each signature.
    """
    total = np.zeros((len(readings.whole_ms), len(TERMS)))
    for number, (work, form) in enumerate(zip(works, forms, strict=True)):
        for place in np.flatnonzero(readings.signature == number):
            sizes = readings.sizes[:, place]
            aligned, effective = effective_sizes(form.alignments, sizes)
            total += work_terms(work, effective.astype(np.float64), ~aligned)
    columns = np.concatenate([np.ones((len(total), 1)), total], axis=1)
    # Terms differ by many orders of magnitude, so columns are scaled for the solver. Rows are divided by the
    # latency, so that relative errors are minimised.
    scale = np.maximum(columns.max(axis=0), 1e-12)
    coefficients = solve_non_negative(columns / scale / readings.whole_ms[:, None], np.ones(len(total)))
    return [
        _surface(work, readings.sizes[:, readings.signature == number], form, (coefficients / scale)[1:])
        for number, (work, form) in enumerate(zip(works, forms, strict=True))
    ]


def kind_of(work: Work) -> str:
    """Return the kind of an operator, which is that of its first contraction, or "other" if it has none."""
    places = {number.place for _, numbers in work for number in numbers if isinstance(number, Share)}
    return next((_kind(call, len(places)) for call, _ in work if call.contracts), "other")


def work_terms(work: Work, sizes: FloatArray, off: BoolArray) -> FloatArray:
    """Return the terms [n, TERMS] of an operator.

    Args:
        work: calls of the operator.
        sizes: float64 [n, 2], the effective sizes.
        off: bool [n, 2], which of them are not aligned.
    """
    table = dict.fromkeys(TERMS, np.zeros(len(sizes)))
    places = {number.place for _, numbers in work for number in numbers if isinstance(number, Share)}
    for call, numbers in work:
        shapes = _shapes(call, numbers, sizes)
        elements = [axes.prod(axis=0) for axes in shapes]
        read = sum(each for place, each in enumerate(elements) if place in call.weights)
        table["weights"] = table["weights"] + read
        moved = np.sum([each for place, each in enumerate(elements) if place not in call.weights], axis=0)
        if not call.contracts:
            table["activations"] = table["activations"] + moved
            continue
        kind = _kind(call, len(places))
        macs = _macs(call, shapes)
        values = (macs, moved, macs * off[:, 0], macs * off[:, 1])
        for term, value in zip(_KIND_TERMS, values, strict=True):
            table[kind, term] = table[kind, term] + value
    return np.stack(list(table.values()), axis=1)


def _kind(call: Call, sizes: int) -> str:
    """Return the kind of a contraction that depends on this number of sizes."""
    if sizes < MOST_SIZES:
        return "single"
    kernel = call.shapes[min(call.weights)][2:] if call.weights else ()
    return "spatial" if any(length > 1 for length in kernel) else "pointwise"


def _shapes(call: Call, numbers: Sequence[Number], sizes: FloatArray) -> list[FloatArray]:
    """Return the shape [axes, n] of each tensor of a call."""
    lengths = [
        number.factor * sizes[:, number.place]
        if isinstance(number, Share)
        else np.full(len(sizes), float(number))
        for number in numbers
    ]
    ends = np.cumsum([len(shape) for shape in call.shapes])
    return [
        np.array(lengths[end - len(shape) : end]).reshape(len(shape), len(sizes))
        for end, shape in zip(ends.tolist(), call.shapes, strict=True)
    ]


def _macs(call: Call, shapes: Sequence[FloatArray]) -> FloatArray:
    """Return the MACs [n] of a contraction, up to a factor that is the same at all sizes."""
    if "conv" in call.name.lower() and call.weights:
        # Each output value takes the weights of one filter, or each input value if it is transposed.
        data = shapes[0] if "transpose" in call.name.lower() else shapes[-1]
        return np.asarray(data.prod(axis=0) * shapes[min(call.weights)][1:].prod(axis=0))
    # (m, k) by (k, n): the product of the three tensors' elements is the square of m k n.
    read = sorted(shapes[:-1], key=lambda axes: -float(axes.prod(axis=0).max()))[:2]
    elements = np.prod([axes.prod(axis=0) for axes in (*read, shapes[-1])], axis=0)
    return np.asarray(np.sqrt(elements))


def _surface(work: Work, sizes: NDArray[np.int64], form: Form, coefficients: FloatArray) -> Surface:
    flat = sizes.reshape(-1, MOST_SIZES)
    aligned, effective = effective_sizes(form.alignments, flat)
    largest = effective.max(axis=0)
    knots = tuple(np.array(_KNOTS) * most if most else np.zeros(1) for most in largest.tolist())
    at = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, MOST_SIZES)
    kinds = itertools.product((False, True), repeat=MOST_SIZES)
    grids = [
        work_terms(work, at, np.full(at.shape, False) | ~np.array(each)) @ coefficients for each in kinds
    ]
    shape = (2, 2, len(knots[0]), len(knots[1]))
    # Every grid is known, even one that this operator was not timed at: coefficients come from all operators.
    return Surface(
        form.alignments, (knots[0], knots[1]), np.stack(grids).reshape(shape), observed_kinds(aligned)
    )
