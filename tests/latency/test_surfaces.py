"""Surfaces and fits against latencies that follow a known function of the sizes."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.latency.fits import best_fit
from autoprune.latency.surfaces import CUTS, Grain, Readings, fit_surfaces

RNG = np.random.default_rng(0)


def block_of_8(sizes: np.ndarray) -> np.ndarray:
    """Milliseconds [...] of sizes [..., 2] on a runtime that works on eight channels at a time."""
    rounded = -(-sizes // 8) * 8
    milliseconds: np.ndarray = 0.01 + 2e-5 * rounded[..., 0] * rounded[..., 1]
    return milliseconds


def readings(noise: float = 0.0) -> Readings:
    """50 candidates of three operators, the first two of one signature."""
    sizes = RNG.integers(4, 65, (50, 3, 2))
    ms = block_of_8(sizes) * np.array([1.0, 1.0, 3.0])
    ms *= 1 + noise * RNG.standard_normal(ms.shape)
    return Readings(sizes, ms, 0.2 + 1.1 * ms.sum(axis=1), np.array([0, 0, 1]))


def test_a_surface_finds_the_function_between_its_readings() -> None:
    found = fit_surfaces(readings(), Grain(align=1, step=8), CUTS[0])
    sizes = RNG.integers(8, 60, (200, 2))
    np.testing.assert_allclose(found[0].at(sizes), block_of_8(sizes), rtol=1e-3)
    np.testing.assert_allclose(found[1].at(sizes), 3 * block_of_8(sizes), rtol=1e-3)


def test_the_fit_finds_grain_constant_and_scale() -> None:
    fit = best_fit(readings(), fit_surfaces)
    assert fit.grain.step == 8
    assert fit.constant_ms == pytest.approx(0.2, rel=0.05)
    assert fit.scale == pytest.approx(1.1, rel=0.02)
    assert fit.error < 0.005


def test_the_error_is_that_of_candidates_held_out() -> None:
    """With noise of 20% in each operator, the whole of three errs by some 20% / sqrt(3)."""
    assert 0.02 < best_fit(readings(noise=0.2), fit_surfaces).error < 0.2


def test_milliseconds_never_fall_along_a_grid() -> None:
    for surface in fit_surfaces(readings(noise=0.3), Grain(align=4, step=8), CUTS[2]):
        assert (np.diff(surface.ms, axis=2) >= -1e-12).all()
        assert (np.diff(surface.ms, axis=3) >= -1e-12).all()
