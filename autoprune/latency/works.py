"""Own the work of operators: how much each computes and moves at its sizes, for runtimes that time models whole.

What a pass takes is then a sum of few terms over all operators, each with a coefficient that is fitted. Before:
`operators` knows the calls; after: the same surfaces as from operators that were timed one by one.

    surfaces = fit_works(readings, Grain(1, 16), CUTS[0], works=works)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from autoprune.latency.operators import MOST_SIZES, Call, Number, Share
from autoprune.latency.surfaces import Grain, Readings, Surface

FloatArray = NDArray[np.float64]

Work: TypeAlias = Sequence[tuple[Call, Sequence[Number]]]
"""The calls of an operator with their numbers."""

_KNOTS = (0.0, 0.125, 0.25, 0.5, 1.0)
"""Of the surfaces, as shares of the largest size."""

_OFF = ("macs of few sizes off the grain", "macs off the grain")
TERMS = ("operators", "activations", "weights", "macs of few sizes", "macs", *_OFF)
"""What a pass takes time for. A depthwise convolution, the first layer and the last have a single size."""


def fit_works(
    readings: Readings, grain: Grain, cuts: Sequence[float], works: Sequence[Work]
) -> list[Surface]:
    """Fit the terms to whole passes, and return the surface that they make for each signature.

    Args:
        readings: what was measured; their `ms` are not looked at.
        grain: of the runtime.
        cuts: not used: the terms are no fit to knots.
        works: one for each signature.
    """
    total = np.zeros((len(readings.whole_ms), len(TERMS)))
    for number, work in enumerate(works):
        for place in np.flatnonzero(readings.signature == number):
            sizes = readings.sizes[:, place]
            total += amounts(work, grain.effective(sizes).astype(np.float64), (~grain.on(sizes)).any(axis=1))
    scale = np.maximum(total.max(axis=0), 1e-12)
    coefficients, _ = nnls(total / scale / readings.whole_ms[:, None], np.ones(len(total)))
    return [
        _surface(work, readings.sizes[:, readings.signature == number], grain, coefficients / scale)
        for number, work in enumerate(works)
    ]


def amounts(work: Work, effective: FloatArray, off: NDArray[np.bool_]) -> FloatArray:
    """Return the terms [n, TERMS] of an operator at effective sizes [n, 2], off the grain or on it [n]."""
    table = np.zeros((len(effective), len(TERMS)))
    places = {number.place for _, numbers in work for number in numbers if isinstance(number, Share)}
    macs_of, off_of = ("macs", _OFF[1]) if len(places) == MOST_SIZES else ("macs of few sizes", _OFF[0])
    for call, numbers in work:
        shapes = _shapes(call, numbers, effective)
        for place, axes in enumerate(shapes):
            table[:, TERMS.index("weights" if place in call.weights else "activations")] += axes.prod(axis=0)
        if call.contracts:
            macs = _macs(call, shapes)
            table[:, TERMS.index("operators")] += 1
            table[:, TERMS.index(macs_of)] += macs
            table[:, TERMS.index(off_of)] += macs * off
    return table


def _shapes(call: Call, numbers: Sequence[Number], effective: FloatArray) -> list[FloatArray]:
    """Return the shape of each tensor of a call, [axes, n]."""
    lengths = [
        number.factor * effective[:, number.place]
        if isinstance(number, Share)
        else np.full(len(effective), float(number))
        for number in numbers
    ]
    ends = np.cumsum([len(shape) for shape in call.shapes])
    return [
        np.array(lengths[end - len(shape) : end]).reshape(len(shape), len(effective))
        for end, shape in zip(ends, call.shapes, strict=True)
    ]


def _macs(call: Call, shapes: Sequence[FloatArray]) -> FloatArray:
    """Return the multiply-adds [n] of a contraction, up to a factor that is the same at all sizes."""
    if "conv" in call.name and call.weights:
        data = shapes[0] if "transpose" in call.name else shapes[-1]
        return np.asarray(data.prod(axis=0) * shapes[min(call.weights)][1:].prod(axis=0))
    # (m, k) by (k, n): the product of the three tensors' elements is the square of m k n.
    read = sorted(shapes[:-1], key=lambda axes: -float(axes.prod(axis=0).max()))[:2]
    elements = np.prod([axes.prod(axis=0) for axes in (*read, shapes[-1])], axis=0)
    return np.asarray(np.sqrt(elements))


def _surface(work: Work, sizes: NDArray[np.int64], grain: Grain, coefficients: FloatArray) -> Surface:
    largest = grain.effective(sizes.reshape(-1, MOST_SIZES)).max(axis=0)
    first, second = (np.array(_KNOTS) * most if most else np.zeros(1) for most in largest.tolist())
    at = np.stack(np.meshgrid(first, second, indexing="ij"), axis=-1).reshape(-1, MOST_SIZES)
    grids = []
    for off in (True, True, True, False):
        grids.append(amounts(work, at, np.full(len(at), off)) @ coefficients)
    return Surface(grain, (first, second), np.stack(grids).reshape(2, 2, len(first), len(second)))
