"""Own the work of operators: what each computes and moves at its sizes, for runtimes that time models whole.

What a pass takes is then a sum of few terms over all operators, each with a coefficient that is fitted.
Before: `operators` knows the calls; after: surfaces, as from operators that were timed one by one.

    surfaces = fit_works(readings, [form] * len(works), works)
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from autoprune.latency.table._alignment import effective
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.latency.table._operators import MOST_SIZES, Call, Number, Share
from autoprune.latency.table._surfaces import Form, Readings, Surface, observed_kinds
from autoprune.support.arrays import BoolArray, FloatArray

Work: TypeAlias = Sequence[tuple[Call, Sequence[Number]]]
"""The calls of an operator with their numbers."""

_KINDS = ("single", "pointwise", "spatial")
"""Contractions of a single size (depthwise, the first layer, the last), 1 x 1 and linear ones, others."""

_KIND_TERMS = ("macs", "activations", "macs with in off", "macs with out off")

TERMS = ("weights", "activations", *itertools.product(_KINDS, _KIND_TERMS))
"""What a pass takes time for, besides a constant; "off": that size is not aligned."""

_KNOTS = (0.0, 0.125, 0.25, 0.5, 1.0)
"""Of the surfaces, as shares of the largest size."""


def fit_works(readings: Readings, forms: Sequence[Form], works: Sequence[Work]) -> list[Surface]:
    """Fit the terms to whole passes, and return the surface that they make for each signature.

    Args:
        readings: what was measured; their `ms` are not looked at.
        forms: one for each signature; their cuts are not used, as there are no knots to be fitted.
        works: one for each signature.
    """
    total = np.zeros((len(readings.whole_ms), len(TERMS)))
    for number, (work, form) in enumerate(zip(works, forms, strict=True)):
        for place in np.flatnonzero(readings.signature == number):
            sizes = readings.sizes[:, place]
            on, counting = effective(form.grains, sizes)
            total += amounts(work, counting.astype(np.float64), ~on)
    columns = np.concatenate([np.ones((len(total), 1)), total], axis=1)
    scale = np.maximum(columns.max(axis=0), 1e-12)
    coefficients = solve_non_negative(columns / scale / readings.whole_ms[:, None], np.ones(len(total)))
    return [
        _surface(work, readings.sizes[:, readings.signature == number], form, (coefficients / scale)[1:])
        for number, (work, form) in enumerate(zip(works, forms, strict=True))
    ]


def kind_of(work: Work) -> str:
    """Name the kind of an operator: that of its first contraction, or "other" where there is none."""
    places = {number.place for _, numbers in work for number in numbers if isinstance(number, Share)}
    return next((_kind(call, len(places)) for call, _ in work if call.contracts), "other")


def amounts(work: Work, sizes: FloatArray, off: BoolArray) -> FloatArray:
    """Return the terms [n, TERMS] of an operator.

    Args:
        work: its calls.
        sizes: [n, 2], as they count.
        off: [n, 2], which of them are not aligned.
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
    """Name the kind of a contraction that depends on so many sizes."""
    if sizes < MOST_SIZES:
        return "single"
    kernel = call.shapes[min(call.weights)][2:] if call.weights else ()
    return "spatial" if any(length > 1 for length in kernel) else "pointwise"


def _shapes(call: Call, numbers: Sequence[Number], sizes: FloatArray) -> list[FloatArray]:
    """Return the shape of each tensor of a call, [axes, n]."""
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
    """Return the multiply-adds [n] of a contraction, up to a factor that is the same at all sizes."""
    if "conv" in call.name.lower() and call.weights:
        data = shapes[0] if "transpose" in call.name.lower() else shapes[-1]
        return np.asarray(data.prod(axis=0) * shapes[min(call.weights)][1:].prod(axis=0))
    # (m, k) by (k, n): the product of the three tensors' elements is the square of m k n.
    read = sorted(shapes[:-1], key=lambda axes: -float(axes.prod(axis=0).max()))[:2]
    elements = np.prod([axes.prod(axis=0) for axes in (*read, shapes[-1])], axis=0)
    return np.asarray(np.sqrt(elements))


def _surface(work: Work, sizes: NDArray[np.int64], form: Form, coefficients: FloatArray) -> Surface:
    flat = sizes.reshape(-1, MOST_SIZES)
    seen, counting = effective(form.grains, flat)
    largest = counting.max(axis=0)
    knots = tuple(np.array(_KNOTS) * most if most else np.zeros(1) for most in largest.tolist())
    at = np.stack(np.meshgrid(*knots, indexing="ij"), axis=-1).reshape(-1, MOST_SIZES)
    on = itertools.product((False, True), repeat=MOST_SIZES)
    grids = [amounts(work, at, np.full(at.shape, False) | ~np.array(each)) @ coefficients for each in on]
    shape = (2, 2, len(knots[0]), len(knots[1]))
    # Kinds that this operator was not seen at need no other's grid: the coefficients come from all operators.
    return Surface(form.grains, (knots[0], knots[1]), np.stack(grids).reshape(shape), observed_kinds(seen))
