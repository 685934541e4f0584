"""Own the fit of a table: the grain of the runtime, a surface a signature, whole passes from operators.

What is tried is judged by candidates that took no part: five-fold, by the error of whole forward passes.
Before: `tabulate` measured; after: the table.

    fit = best_fit(readings, fit_surfaces)
    fit.grain, fit.error              # Grain(align=4, step=16), 0.021
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from autoprune.latency.surfaces import CUTS, Grain, Readings, Surface, sum_surfaces

FloatArray = NDArray[np.float64]

Fitter: TypeAlias = Callable[[Readings, Grain, Sequence[float]], list[Surface]]
"""(what was measured, grain, knots as shares of the largest size) -> a surface for each signature."""

GRAINS = tuple(
    Grain(align, step)
    for align, step in itertools.product((1, 2, 4, 8, 16), (1, 4, 8, 16, 32))
    if step >= align
)
"""What is tried."""

_FOLDS = 5


@dataclass(frozen=True, eq=False)
class Fit:
    """What a table is made of; the attributes are those of LatencyTable and Calibration."""

    grain: Grain
    surfaces: Sequence[Surface]
    constant_ms: float
    scale: float
    error: float


def best_fit(readings: Readings, fitter: Fitter) -> Fit:
    """Fit with the grain and the knots that predict best what was held out."""
    errors = {grain: _held_out_error(readings, fitter, grain, CUTS[0]) for grain in GRAINS}
    grain = min(errors, key=lambda each: errors[each])
    by_cuts = {cuts: _held_out_error(readings, fitter, grain, cuts) for cuts in CUTS}
    cuts = min(by_cuts, key=lambda each: by_cuts[each])
    surfaces, constant, scale = _calibrated(readings, fitter(readings, grain, cuts))
    return Fit(grain, surfaces, constant, scale, by_cuts[cuts])


def _calibrated(readings: Readings, surfaces: list[Surface]) -> tuple[list[Surface], float, float]:
    """Return the surfaces, and the constant and the scale that make whole passes of their sums."""
    sums = sum_surfaces(surfaces, readings.sizes, readings.signature)
    columns = np.stack([np.ones(len(sums)), sums], axis=1)
    (constant, scale), _ = nnls(columns / readings.whole_ms[:, None], np.ones(len(sums)))
    return surfaces, float(constant), float(scale)


def _held_out_error(readings: Readings, fitter: Fitter, grain: Grain, cuts: Sequence[float]) -> float:
    """Return the mean absolute relative error of whole passes, each predicted from the other folds."""
    # A candidate that was measured more than once is held out as a whole.
    flat = readings.sizes.reshape(len(readings.sizes), -1)
    _, candidate = np.unique(flat, axis=0, return_inverse=True)
    fold = (np.random.default_rng(0).permutation(int(candidate.max()) + 1) % _FOLDS)[candidate]
    errors = []
    for number in range(_FOLDS):
        rest, held = readings.part(fold != number), readings.part(fold == number)
        surfaces, constant, scale = _calibrated(rest, fitter(rest, grain, cuts))
        predicted = constant + scale * sum_surfaces(surfaces, held.sizes, held.signature)
        errors.append(np.abs(predicted / held.whole_ms - 1))
    return float(np.concatenate(errors).mean())
