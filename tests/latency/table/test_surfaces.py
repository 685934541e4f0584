"""Surfaces and fits against latencies that follow a known function of the sizes."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.errors import LatencyError
from autoprune.latency.table._alignment import Alignment, aligned_axes
from autoprune.latency.table._fits import best_form, fit_operators
from autoprune.latency.table._surfaces import CUTS, Form, Readings, fit_surfaces, sum_surfaces


def blocked(sizes: np.ndarray) -> np.ndarray:
    """Milliseconds [...] of sizes [..., 2] on a runtime that writes eight channels at a time.

    It reads eight at a time too, if there are more than eight and a multiple of four; else, from nine on, it
    is three times as slow, but channel by channel.
    """
    into, out = sizes[..., 0], sizes[..., 1]
    fast = (into % 4 == 0) | (into <= 8)
    blocks = np.where(into <= 8, into, -(-into // 8) * 8) * (-(-out // 8) * 8)
    milliseconds: np.ndarray = 0.01 + 2e-5 * np.where(fast, blocks, 3 * into * out)
    return milliseconds


FORM = Form((Alignment(align=4, step=8, free=8), Alignment(step=8)))


def readings(noise: float = 0.0, candidates: int = 50) -> Readings:
    """Return those of candidates of three operators, the first two of one signature."""
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 65, (candidates, 3, 2))
    sizes[rng.random(sizes.shape) < 0.4] &= ~3  # as many aligned ones as a design has
    sizes = np.maximum(sizes, 1)
    ms = blocked(sizes) * np.array([1.0, 1.0, 3.0])
    ms *= 1 + noise * rng.standard_normal(ms.shape)
    return Readings(sizes, ms, 0.2 + 1.1 * ms.sum(axis=1), np.array([0, 0, 1]))


def test_a_surface_finds_the_function_between_its_readings() -> None:
    found = fit_surfaces(readings(), [FORM, FORM])
    sizes = np.random.default_rng(1).integers(1, 60, (200, 2))
    np.testing.assert_allclose(found[0].at(sizes), blocked(sizes), rtol=0.01)
    np.testing.assert_allclose(found[1].at(sizes), 3 * blocked(sizes), rtol=0.01)


def test_the_fit_finds_alignments_constant_and_scale() -> None:
    """A pass takes a tenth more than its operators, timed one by one."""
    fit = fit_operators(readings(), ["spatial", "spatial"])
    sizes = np.random.default_rng(1).integers(1, 60, (200, 3, 2))
    exact = 0.2 + 1.1 * (blocked(sizes) * np.array([1.0, 1.0, 3.0])).sum(axis=1)
    predicted = fit.constant_ms + sum_surfaces(fit.surfaces, sizes, np.array([0, 0, 1]))
    assert np.abs(predicted / exact - 1).mean() < 0.01
    assert fit.constant_ms == pytest.approx(0.2, rel=0.05)
    assert fit.error < 0.01
    assert {surface.alignments[1].step for surface in fit.surfaces} == {8}


def test_sizes_that_are_aligned_and_others_have_a_scale_each() -> None:
    """Timed one by one, operators off the steps hide what a pass takes to convert between layouts."""
    found = readings()
    on = aligned_axes(FORM.alignments, found.sizes.reshape(-1, 2)).all(axis=1).reshape(found.ms.shape)
    factors = np.where(on, 0.9, 1.3)
    hidden = Readings(found.sizes, found.ms, (found.ms * factors).sum(axis=1), found.signature)
    fit = fit_operators(hidden, ["spatial", "spatial"])
    sizes = np.array([[[16, 16]] * 3, [[24, 40]] * 3, [[19, 21]] * 3, [[42, 33]] * 3])
    exact = (blocked(sizes) * np.array([1.0, 1.0, 3.0])).sum(axis=1) * np.array([0.9, 0.9, 1.3, 1.3])
    found_ms = fit.constant_ms + sum_surfaces(fit.surfaces, sizes, found.signature)
    np.testing.assert_allclose(found_ms, exact, rtol=0.05)


def test_each_kind_of_operator_has_its_own_alignment() -> None:
    """The third operator is exact to the channel, and knows no blocks."""
    found = readings()
    ms = found.ms.copy()
    ms[:, 2] = 1e-4 * found.sizes[:, 2].prod(axis=1)
    mixed = Readings(found.sizes, ms, ms.sum(axis=1), found.signature)
    fit = fit_operators(mixed, ["spatial", "pointwise"])
    assert fit.surfaces[0].alignments[1].step == 8
    assert fit.surfaces[1].alignments == (Alignment(), Alignment())


def test_the_error_is_that_of_candidates_held_out() -> None:
    """With noise of 20% in each operator, the whole of three errs by some 20% / sqrt(3)."""
    assert 0.02 < fit_operators(readings(noise=0.2), ["spatial", "spatial"]).error < 0.2


def test_the_error_owes_nothing_to_the_choice_of_the_form() -> None:
    """Passes that follow no size: the best of hundreds of forms looks good on those it was chosen by."""
    rng = np.random.default_rng(0)
    found = readings()
    ms = 0.1 * rng.lognormal(sigma=0.5, size=found.ms.shape)
    fit = fit_operators(Readings(found.sizes, ms, ms.sum(axis=1), found.signature), ["spatial", "spatial"])
    sizes = np.random.default_rng(1).integers(1, 65, (1000, 3, 2))
    fresh = 0.1 * rng.lognormal(sigma=0.5, size=(1000, 3))
    unseen = Readings(sizes, fresh, fresh.sum(axis=1), found.signature)
    truth = np.abs(fit.at(unseen) / unseen.whole_ms - 1).mean()
    # Ten candidates were held out: the standard error of their mean is some fifth of it.
    assert truth / 2 < fit.error < truth * 2


def test_a_form_that_cannot_be_fitted_is_not_chosen() -> None:
    aim = Form((Alignment(step=8), Alignment(step=8)))

    def error(form: Form) -> float:
        if form != aim:
            raise LatencyError("does not settle")
        return 0.5

    assert best_form(error) == aim


def test_a_fit_that_does_not_settle_is_one_line_with_advice(monkeypatch: pytest.MonkeyPatch) -> None:
    def stuck(columns: np.ndarray, target: np.ndarray, maxiter: int) -> tuple[np.ndarray, float]:
        assert maxiter == 30 * columns.shape[1]
        raise RuntimeError("Maximum number of iterations reached.")

    monkeypatch.setattr("autoprune.latency.table._least_squares.nnls", stuck)
    with pytest.raises(LatencyError, match=r"does not converge\. Measure again .* latency\.probe"):
        fit_operators(readings(), ["spatial", "spatial"])


def test_a_form_is_left_only_for_one_that_is_better_beyond_chance() -> None:
    aim = Form((Alignment(align=4, step=16, free=16), Alignment(step=8)), CUTS[2])

    def error(form: Form, noise: float) -> float:
        wrong = sum(
            mine != asked
            for alignment, other in zip(form.alignments, aim.alignments, strict=True)
            for mine, asked in (
                (alignment.align, other.align),
                (alignment.step, other.step),
                (alignment.free, other.free),
            )
        )
        return 1.0 + noise * (wrong + (form.cuts != aim.cuts))

    assert best_form(lambda form: error(form, 0.1)) == aim
    kept = best_form(lambda form: error(form, 0.001))
    assert kept.alignments[0] == kept.alignments[1]


def test_milliseconds_never_fall_along_a_grid() -> None:
    form = Form((Alignment(align=4, step=8), Alignment(align=4, step=8)), CUTS[2])
    for surface in fit_surfaces(readings(noise=0.3), [form, form]):
        assert (np.diff(surface.ms, axis=2) >= -1e-12).all()
        assert (np.diff(surface.ms, axis=3) >= -1e-12).all()
