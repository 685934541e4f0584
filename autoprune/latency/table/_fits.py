"""Fit the surfaces of a latency table to timed candidates, and whole forward passes to their sums.

Forms are compared by cross-validation over candidates. The error of the table is that on a fifth of the
candidates which took no part in the choice or the fit. Then the form is chosen and fitted again on all.

Example:
    fit = fit_operators(readings, kinds)         # if each operator was timed: one form for each kind
    fit = fit_passes(readings, works)            # if only whole passes were timed: one form for all
    fit.surfaces, fit.error                      # 0.021
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from autoprune.errors import LatencyError
from autoprune.latency.table._alignment import Alignment, effective_sizes
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.latency.table._operator_work import Work, fit_operator_work
from autoprune.latency.table._surfaces import (
    CUTS,
    Form,
    Readings,
    Surface,
    fit_surfaces,
    sum_kinds,
    sum_surfaces,
)
from autoprune.support.arrays import FloatArray

Fitter: TypeAlias = Callable[[Readings, Sequence[Form]], list[Surface]]
"""(readings, a form for each signature) -> a surface for each signature."""

_ALIGNS = (1, 2, 4, 8, 16)
_STEPS = (1, 2, 4, 8, 16, 32)
_FREE = (0, 4, 8, 16, 32)
"""Values of an alignment that are tried."""

_FOLDS = 5
"""Folds of the candidates that judge whole passes."""

_FORM_FOLDS = 3
"""Folds of the candidates that judge the form of one kind of operators. Fewer are faster."""

_MOST_SIGNATURES = 8
"""Number of signatures on which the form of a kind is chosen, those that take the most time."""

_GAIN = 0.01
"""Share of the error that a new form must save. Less may be due to chance."""

_NEGLIGIBLE = 0.002
"""Smaller errors count as equal, so that the simplest form is kept. No table is more exact than this."""


@dataclass(frozen=True, eq=False)
class Fit:
    """The fitted parts of a table. The attributes are those of LatencyTable and Calibration."""

    surfaces: Sequence[Surface]
    constant_ms: float
    error: float

    def at(self, readings: Readings) -> FloatArray:
        """Return the predicted milliseconds [candidates] of whole passes, from the readings' sizes only."""
        return self.constant_ms + sum_surfaces(self.surfaces, readings.sizes, readings.signature)


def fit_operators(readings: Readings, kinds: Sequence[str]) -> Fit:
    """Fit operators that were timed one by one, then whole passes to the operators' sums.

    Kinds of operators have different kernels, so each kind has the form that predicts its operators best.

    Args:
        readings: the timed candidates.
        kinds: kind of each signature.

    Raises:
        LatencyError: the fit does not converge.
    """
    return _fit(readings, fit_surfaces, functools.partial(_forms_of_kinds, kinds=kinds))


def fit_passes(readings: Readings, works: Sequence[Work]) -> Fit:
    """Fit the work of operators to whole passes if only these were timed, with one form for all operators.

    Args:
        readings: the timed candidates. Their `ms` are not used.
        works: work of each signature.

    Raises:
        LatencyError: the fit does not converge.
    """
    fitter = functools.partial(fit_operator_work, works=works)

    def choose(readings: Readings) -> list[Form]:
        def error(form: Form) -> float:
            return _error_of_passes(readings, fitter, [form] * len(works))

        return [min(_symmetric_forms(), key=_comparable(error))] * len(works)

    return _fit(readings, fitter, choose)


def _forms_of_kinds(readings: Readings, kinds: Sequence[str]) -> list[Form]:
    """Choose a form for each kind, and return the form of each signature."""
    forms = [Form()] * len(kinds)
    for kind in dict.fromkeys(kinds):
        mine = [number for number, each in enumerate(kinds) if each == kind]
        slowest = sorted(mine, key=lambda number: -readings.ms[:, readings.signature == number].sum())
        chosen = slowest[:_MOST_SIGNATURES]
        form = best_form(_cached_error(readings.only(chosen), len(chosen)))
        for number in mine:
            forms[number] = form
    return forms


def best_form(error: Callable[[Form], float]) -> Form:
    """Return the form with the smallest error, by coordinate descent.

    The search starts at the best form with the same alignment along both axes. Then the alignment of one
    axis, that of the other axis, and the cuts are chosen again in turn. This ends with the first round that
    saves no more than chance would. A form that cannot be fitted is worse than any other.
    """
    comparable = functools.cache(_comparable(error))
    best = min(_symmetric_forms(), key=comparable)
    while True:
        before = best
        for options in (_vary_input, _vary_output, _vary_cuts):
            found = min(options(best), key=comparable)
            if comparable(found) < (1 - _GAIN) * comparable(best):
                best = found
        if best == before:
            return best


def _comparable(error: Callable[[Form], float]) -> Callable[[Form], float]:
    """Return the error for comparisons: infinite if the fit does not converge, at least `_NEGLIGIBLE`."""

    def comparable(form: Form) -> float:
        try:
            return max(error(form), _NEGLIGIBLE)
        except LatencyError:
            return float("inf")

    return comparable


def _alignments() -> Iterator[Alignment]:
    """Iterate over the alignments that are tried, the simplest first."""
    for free, align, step in itertools.product(_FREE, _ALIGNS, _STEPS):
        if (step == 1 or step >= align) and (free == 0 or (align, step) != (1, 1)):
            yield Alignment(align, step, free)


def _symmetric_forms() -> Iterator[Form]:
    return (Form((alignment, alignment)) for alignment in _alignments() if alignment.free == 0)


def _vary_input(form: Form) -> Iterator[Form]:
    return (Form((alignment, form.alignments[1]), form.cuts) for alignment in _alignments())


def _vary_output(form: Form) -> Iterator[Form]:
    return (Form((form.alignments[0], alignment), form.cuts) for alignment in _alignments())


def _vary_cuts(form: Form) -> Iterator[Form]:
    return (Form(form.alignments, cuts) for cuts in CUTS)


def _cached_error(readings: Readings, signatures: int) -> Callable[[Form], float]:
    """Return a cached `_error_of_operators`. Forms with the same effective sizes share one result."""
    flat = readings.sizes.reshape(-1, readings.sizes.shape[-1])
    known: dict[tuple[object, ...], float] = {}

    def error(form: Form) -> float:
        key = (*(each.tobytes() for each in effective_sizes(form.alignments, flat)), form.cuts)
        if key not in known:
            known[key] = _error_of_operators(readings, signatures, form)
        return known[key]

    return error


def _error_of_operators(readings: Readings, signatures: int, form: Form) -> float:
    """Return the sum of the operators' absolute errors as a share of the whole pass, by cross-validation.

    The errors of a wrong form may cancel out in the sum of a candidate. Absolute errors cannot.
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
    """Return the mean absolute relative error of whole passes, by cross-validation."""
    errors = []
    for rest, held in _folds(readings):
        errors.append(_relative_errors(_calibrated(rest, fitter(rest, forms)), held))
    return float(np.concatenate(errors).mean())


def _fit(readings: Readings, fitter: Fitter, choose: Callable[[Readings], list[Form]]) -> Fit:
    """Choose and fit on all candidates. The error is that of a choice and a fit without a fifth of them."""
    rest, held = next(_folds(readings))
    error = float(_relative_errors(_calibrated(rest, fitter(rest, choose(rest))), held).mean())
    return dataclasses.replace(_calibrated(readings, fitter(readings, choose(readings))), error=error)


def _relative_errors(fit: Fit, held: Readings) -> FloatArray:
    """Return the absolute relative errors [candidates] of whole passes."""
    return np.asarray(np.abs(fit.at(held) / held.whole_ms - 1))


def _calibrated(readings: Readings, surfaces: Sequence[Surface]) -> Fit:
    """Scale surfaces so that their sum and a constant predict whole passes. The error is left NaN.

    Aligned and other sizes have a scale of their own. Runtimes convert layouts between an aligned operator
    and one that is not, which costs time in addition to the operators. Most models mix them little.
    """
    kinds = sum_kinds(surfaces, readings.sizes, readings.signature)
    used = kinds.any(axis=0)
    columns = np.concatenate([np.ones((len(kinds), 1)), kinds[:, used]], axis=1)
    # Both sides are divided by the measured time, so that relative errors are minimised.
    solved = solve_non_negative(columns / readings.whole_ms[:, None], np.ones(len(kinds)))
    scales = np.ones(2)
    scales[used] = solved[1:]
    aligned, others = scales.tolist()
    return Fit([each.scaled(aligned, others) for each in surfaces], float(solved[0]), math.nan)


def _folds(readings: Readings, folds: int = _FOLDS) -> Iterator[tuple[Readings, Readings]]:
    """Iterate over (training part, held-out part). Candidates of equal sizes are in the same part."""
    flat = readings.sizes.reshape(len(readings.sizes), -1)
    _, candidate = np.unique(flat, axis=0, return_inverse=True)
    # A fixed seed: all forms are compared on the same folds.
    fold = (np.random.default_rng(0).permutation(int(candidate.max()) + 1) % folds)[candidate]
    for number in range(folds):
        yield readings.part(fold != number), readings.part(fold == number)
