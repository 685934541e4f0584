"""Own the fit of a table: the form of its surfaces, the surfaces, whole passes from operators.

What is tried is judged by candidates that took no part: five-fold. Before: `tabulate` measured; after: the
table.

    fit = fit_told(readings, kinds)              # each operator was timed: a form for each kind of operator
    fit = fit_whole(readings, works)             # whole passes were: one form for all
    fit.surfaces, fit.error                      # 0.021
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from autoprune.latency.grains import Grain
from autoprune.latency.surfaces import CUTS, Form, Readings, Surface, fit_surfaces, sum_surfaces
from autoprune.latency.works import Work, fit_works

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]

Fitter: TypeAlias = Callable[[Readings, Sequence[Form]], list[Surface]]
"""(what was measured, a form for each signature) -> a surface for each signature."""

_ALIGNS = (1, 2, 4, 8, 16)
_STEPS = (1, 2, 4, 8, 16, 32)
_FREE = (0, 4, 8, 16, 32)
"""What grains are tried."""

_FOLDS = 5

_FORM_FOLDS = 3

_MOST_SIGNATURES = 8
"""That a kind's form is chosen on: those that take the most time."""

_GAIN = 0.01
"""Share of the error that another form has to save: less may be due to chance."""

_NEGLIGIBLE = 0.002
"""Errors below are equal: no table is as exact, so that the simplest form stays."""


@dataclass(frozen=True, eq=False)
class Fit:
    """What a table is made of; the attributes are those of LatencyTable and Calibration."""

    surfaces: Sequence[Surface]
    constant_ms: float
    scale: float
    error: float


def fit_told(readings: Readings, kinds: Sequence[str]) -> Fit:
    """Fit operators that were timed one by one, then whole passes to their sums.

    Kernels differ among kinds of operators, so each kind has the form that predicts its operators best.

    Args:
        readings: what was measured.
        kinds: of each signature.
    """
    forms = [Form()] * len(kinds)
    for kind in dict.fromkeys(kinds):
        mine = [number for number, each in enumerate(kinds) if each == kind]
        slowest = sorted(mine, key=lambda number: -readings.ms[:, readings.signature == number].sum())
        chosen = slowest[:_MOST_SIGNATURES]
        form = best_form(functools.partial(_error_of_operators, readings.only(chosen), len(chosen)))
        for number in mine:
            forms[number] = form
    return _fit(readings, fit_surfaces, forms)


def fit_whole(readings: Readings, works: Sequence[Work]) -> Fit:
    """Fit what operators compute and move to whole passes, as nothing else was timed; one form for all.

    Args:
        readings: what was measured; their `ms` are not looked at.
        works: of each signature.
    """
    fitter = functools.partial(fit_works, works=works)
    form = min(_alike(), key=lambda form: _error_of_passes(readings, fitter, [form] * len(works)))
    return _fit(readings, fitter, [form] * len(works))


def best_form(error: Callable[[Form], float]) -> Form:
    """Return the form of the smallest error: the best of those that treat both sizes alike, then bettered.

    The grain of one axis, that of the other and the cuts are chosen anew in turn, for as long as a round
    saves more than chance would.
    """

    @functools.cache
    def counting(form: Form) -> float:
        return max(error(form), _NEGLIGIBLE)

    best = min(_alike(), key=counting)
    while True:
        before = best
        for options in (_first_anew, _second_anew, _cut_anew):
            found = min(options(best), key=counting)
            if counting(found) < (1 - _GAIN) * counting(best):
                best = found
        if best == before:
            return best


def _grains() -> Iterator[Grain]:
    """Iterate over the grains that are tried, the simplest first."""
    for free, align, step in itertools.product(_FREE, _ALIGNS, _STEPS):
        if (step == 1 or step >= align) and (free == 0 or (align, step) != (1, 1)):
            yield Grain(align, step, free)


def _alike() -> Iterator[Form]:
    return (Form((grain, grain)) for grain in _grains() if grain.free == 0)


def _first_anew(form: Form) -> Iterator[Form]:
    return (Form((grain, form.grains[1]), form.cuts) for grain in _grains())


def _second_anew(form: Form) -> Iterator[Form]:
    return (Form((form.grains[0], grain), form.cuts) for grain in _grains())


def _cut_anew(form: Form) -> Iterator[Form]:
    return (Form(form.grains, cuts) for cuts in CUTS)


def _error_of_operators(readings: Readings, signatures: int, form: Form) -> float:
    """Return the sum of the operators' absolute errors as a share of the whole pass, held out.

    Errors of a wrong form cancel out in a candidate's sum by chance; here they do not.
    """
    errors = []
    for rest, held in _folds(readings, _FORM_FOLDS):
        surfaces = fit_surfaces(rest, [form] * signatures, robust=False)
        for number, surface in enumerate(surfaces):
            mine = held.signature == number
            predicted = surface.at(held.sizes[:, mine].reshape(-1, 2)).reshape(-1, mine.sum())
            off = np.abs(predicted - held.ms[:, mine]).sum(axis=1)
            errors.append(off / held.whole_ms)
    return float(np.concatenate(errors).sum() / len(readings.whole_ms))


def _error_of_passes(readings: Readings, fitter: Fitter, forms: Sequence[Form]) -> float:
    """Return the mean absolute relative error of whole passes, held out."""
    errors = []
    for rest, held in _folds(readings):
        surfaces = fitter(rest, forms)
        constant, scale = _calibrate(rest, surfaces)
        predicted = constant + scale * sum_surfaces(surfaces, held.sizes, held.signature)
        errors.append(np.abs(predicted / held.whole_ms - 1))
    return float(np.concatenate(errors).mean())


def _fit(readings: Readings, fitter: Fitter, forms: Sequence[Form]) -> Fit:
    surfaces = fitter(readings, forms)
    constant, scale = _calibrate(readings, surfaces)
    return Fit(surfaces, constant, scale, _error_of_passes(readings, fitter, forms))


def _calibrate(readings: Readings, surfaces: Sequence[Surface]) -> tuple[float, float]:
    """Return the constant and the scale that make whole passes of the operators' sums."""
    sums = sum_surfaces(surfaces, readings.sizes, readings.signature)
    columns = np.stack([np.ones(len(sums)), sums], axis=1)
    (constant, scale), _ = nnls(columns / readings.whole_ms[:, None], np.ones(len(sums)))
    return float(constant), float(scale)


def _folds(readings: Readings, folds: int = _FOLDS) -> Iterator[tuple[Readings, Readings]]:
    """Iterate over (the rest, those held out); a candidate that was measured twice is held out as a whole."""
    flat = readings.sizes.reshape(len(readings.sizes), -1)
    _, candidate = np.unique(flat, axis=0, return_inverse=True)
    fold = (np.random.default_rng(0).permutation(int(candidate.max()) + 1) % folds)[candidate]
    for number in range(folds):
        yield readings.part(fold != number), readings.part(fold == number)
