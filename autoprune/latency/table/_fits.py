"""Own the fit of a table: the form of its surfaces, the surfaces, whole passes from operators.

What is tried is judged by folds of candidates that took no part, and what comes out by a fifth of all that
took part in no choice either; then everything is chosen and fitted anew on all. Before: `tabulate` measured;
after: the table.

    fit = fit_told(readings, kinds)              # each operator was timed: a form for each kind of operator
    fit = fit_whole(readings, works)             # whole passes were: one form for all
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
from autoprune.latency.table._alignment import Grain, effective
from autoprune.latency.table._least_squares import solve_non_negative
from autoprune.latency.table._operator_work import Work, fit_works
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
    error: float

    def at(self, readings: Readings) -> FloatArray:
        """Return the milliseconds [candidates] of whole passes, by the sizes alone."""
        return self.constant_ms + sum_surfaces(self.surfaces, readings.sizes, readings.signature)


def fit_told(readings: Readings, kinds: Sequence[str]) -> Fit:
    """Fit operators that were timed one by one, then whole passes to their sums.

    Kernels differ among kinds of operators, so each kind has the form that predicts its operators best.

    Args:
        readings: what was measured.
        kinds: of each signature.

    Raises:
        LatencyError: the fit does not settle.
    """
    return _fit(readings, fit_surfaces, functools.partial(_forms_of_kinds, kinds=kinds))


def fit_whole(readings: Readings, works: Sequence[Work]) -> Fit:
    """Fit what operators compute and move to whole passes, as nothing else was timed; one form for all.

    Args:
        readings: what was measured; their `ms` are not looked at.
        works: of each signature.

    Raises:
        LatencyError: the fit does not settle.
    """
    fitter = functools.partial(fit_works, works=works)

    def choose(readings: Readings) -> list[Form]:
        def error(form: Form) -> float:
            return _error_of_passes(readings, fitter, [form] * len(works))

        return [min(_alike(), key=_judged(error))] * len(works)

    return _fit(readings, fitter, choose)


def _forms_of_kinds(readings: Readings, kinds: Sequence[str]) -> list[Form]:
    """Return a form for each signature, by its kind."""
    forms = [Form()] * len(kinds)
    for kind in dict.fromkeys(kinds):
        mine = [number for number, each in enumerate(kinds) if each == kind]
        slowest = sorted(mine, key=lambda number: -readings.ms[:, readings.signature == number].sum())
        chosen = slowest[:_MOST_SIGNATURES]
        form = best_form(_error_by_what_counts(readings.only(chosen), len(chosen)))
        for number in mine:
            forms[number] = form
    return forms


def best_form(error: Callable[[Form], float]) -> Form:
    """Return the form of the smallest error: the best of those that treat both sizes alike, then bettered.

    The grain of one axis, that of the other and the cuts are chosen anew in turn, for as long as a round
    saves more than chance would. A form that cannot be fitted is worse than any other.
    """
    counting = functools.cache(_judged(error))
    best = min(_alike(), key=counting)
    while True:
        before = best
        for options in (_first_anew, _second_anew, _cut_anew):
            found = min(options(best), key=counting)
            if counting(found) < (1 - _GAIN) * counting(best):
                best = found
        if best == before:
            return best


def _judged(error: Callable[[Form], float]) -> Callable[[Form], float]:
    """Return the error as it counts: infinite where the fit does not settle, at least the negligible one."""

    def counting(form: Form) -> float:
        try:
            return max(error(form), _NEGLIGIBLE)
        except LatencyError:
            return float("inf")

    return counting


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


def _error_by_what_counts(readings: Readings, signatures: int) -> Callable[[Form], float]:
    """Return `_error_of_operators` by form; forms to which all sizes are the same are judged once."""
    flat = readings.sizes.reshape(-1, readings.sizes.shape[-1])
    known: dict[tuple[object, ...], float] = {}

    def error(form: Form) -> float:
        key = (*(each.tobytes() for each in effective(form.grains, flat)), form.cuts)
        if key not in known:
            known[key] = _error_of_operators(readings, signatures, form)
        return known[key]

    return error


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
        errors.append(_off(_calibrated(rest, fitter(rest, forms)), held))
    return float(np.concatenate(errors).mean())


def _fit(readings: Readings, fitter: Fitter, choose: Callable[[Readings], list[Form]]) -> Fit:
    """Choose and fit on all; the error is that on a fifth of what is chosen and fitted without it."""
    rest, held = next(_folds(readings))
    error = float(_off(_calibrated(rest, fitter(rest, choose(rest))), held).mean())
    return dataclasses.replace(_calibrated(readings, fitter(readings, choose(readings))), error=error)


def _off(fit: Fit, held: Readings) -> FloatArray:
    """Return the absolute relative errors [candidates] of whole passes."""
    return np.asarray(np.abs(fit.at(held) / held.whole_ms - 1))


def _calibrated(readings: Readings, surfaces: Sequence[Surface]) -> Fit:
    """Scale surfaces so that with a constant they add up to whole passes; the error stays open.

    Aligned sizes and others have a scale each. An operator between others of its kind is faster than one
    between both kinds, where runtimes convert layouts; and models have mostly either, or the other.
    """
    kinds = sum_kinds(surfaces, readings.sizes, readings.signature)
    used = kinds.any(axis=0)
    columns = np.concatenate([np.ones((len(kinds), 1)), kinds[:, used]], axis=1)
    solved = solve_non_negative(columns / readings.whole_ms[:, None], np.ones(len(kinds)))
    scales = np.ones(2)
    scales[used] = solved[1:]
    aligned, others = scales.tolist()
    return Fit([each.scaled(aligned, others) for each in surfaces], float(solved[0]), math.nan)


def _folds(readings: Readings, folds: int = _FOLDS) -> Iterator[tuple[Readings, Readings]]:
    """Iterate over (the rest, those held out); a candidate that was measured twice is held out as a whole."""
    flat = readings.sizes.reshape(len(readings.sizes), -1)
    _, candidate = np.unique(flat, axis=0, return_inverse=True)
    fold = (np.random.default_rng(0).permutation(int(candidate.max()) + 1) % folds)[candidate]
    for number in range(folds):
        yield readings.part(fold != number), readings.part(fold == number)
