from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge  # type: ignore[import-untyped]  # it has no hints
from torch import Tensor

from autoprune.reconstruction._leastsquares import Fit, refit, ridge_for, strength_for

ROWS, PATCH, OUTPUTS = 300, 8, 5
KEPT = torch.tensor([0, 2, 3, 6])


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return correlated inputs [rows, patch], a weight [1, outputs, patch] and the inputs' second moment."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(PATCH, PATCH, generator=generator, dtype=torch.float64)
    inputs = torch.randn(ROWS, PATCH, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(1, OUTPUTS, PATCH, generator=generator, dtype=torch.float64)
    return inputs, weight, (inputs.T @ inputs / ROWS)[None]


def cut(moment: Tensor, weight: Tensor, kept: Tensor, *, ridge: float | None = None) -> Fit:
    """Fit the outputs of a dense weight from some of its inputs."""
    cross = weight @ moment
    power = (cross * weight).sum(dim=2)
    gram = moment[:, kept][..., kept]
    return refit(gram, cross[..., kept], weight[..., kept], power, strength_of(gram, ROWS, ridge))


def strength_of(gram: Tensor, rows: int, ridge: float | None) -> Tensor:
    return strength_for(
        gram.diagonal(dim1=1, dim2=2), ridge_for(gram.shape[1], rows) if ridge is None else ridge
    )


def test_without_a_ridge_it_is_the_least_squares_solution() -> None:
    inputs, weight, moment = problem()
    expected = torch.linalg.lstsq(inputs[:, KEPT], inputs @ weight[0].T).solution.T
    torch.testing.assert_close(
        cut(moment, weight, KEPT, ridge=1e-14).weight[0], expected, rtol=1e-8, atol=1e-8
    )


def test_with_a_ridge_it_is_that_of_scikit_learn_on_the_residual() -> None:
    inputs, weight, moment = problem()
    ridge = 0.05
    sliced = weight[0][:, KEPT]
    strength = ridge * float(moment[0][KEPT[:, None], KEPT].diagonal().mean()) * ROWS
    model = Ridge(alpha=strength, fit_intercept=False, solver="cholesky")
    model.fit(inputs[:, KEPT].numpy(), (inputs @ weight[0].T - inputs[:, KEPT] @ sliced.T).numpy())
    fitted = cut(moment, weight, KEPT, ridge=ridge).weight[0]
    np.testing.assert_allclose(fitted.numpy(), sliced.numpy() + model.coef_, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_that_of_the_outputs_and_below_that_of_the_cut_weights(seed: int) -> None:
    inputs, weight, moment = problem(seed)
    fit = cut(moment, weight, KEPT)
    outputs = inputs @ weight[0].T

    def lost(new: Tensor) -> float:
        return float((outputs - inputs[:, KEPT] @ new.T).square().sum() / outputs.square().sum())

    assert fit.error == pytest.approx(lost(fit.weight[0]), rel=1e-9)
    assert fit.error < lost(weight[0][:, KEPT])
    reached = (inputs[:, KEPT] @ fit.weight[0].T).square().mean(dim=0)
    torch.testing.assert_close(fit.reached[0], reached, rtol=1e-9, atol=0)


def test_all_inputs_keep_their_weights() -> None:
    _, weight, moment = problem()
    fit = cut(moment, weight, torch.arange(PATCH), ridge=0.1)
    torch.testing.assert_close(fit.weight, weight, rtol=0, atol=1e-12)
    assert fit.error == pytest.approx(0, abs=1e-12)


def test_inputs_that_are_always_zero_keep_their_weights() -> None:
    old = torch.ones(1, 2, 3, dtype=torch.float64)
    zeros = torch.zeros(1, 3, 3, dtype=torch.float64)
    strength = strength_of(zeros, ROWS, None)
    fit = refit(zeros, torch.zeros(1, 2, 3, dtype=torch.float64), old, torch.zeros(1, 2).double(), strength)
    assert torch.equal(fit.weight, old)
    assert fit.error == 0


@pytest.mark.parametrize("rows", [30, 60, 300, 3000])
def test_the_ridge_by_the_rule_is_near_the_best_on_other_rows(rows: int) -> None:
    """Channels that share a few causes, half of them removed; fewer rows than inputs, up to many more."""
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(10, 80, generator=generator, dtype=torch.float64)

    def inputs(count: int) -> Tensor:
        shared = torch.randn(count, 10, generator=generator, dtype=torch.float64) @ causes
        return shared + 3 * torch.randn(count, 80, generator=generator, dtype=torch.float64)

    seen, others, kept = inputs(rows), inputs(4000), torch.arange(40)
    weight = torch.randn(1, 20, 80, generator=generator, dtype=torch.float64)
    moment = (seen.T @ seen / rows)[None]
    cross = weight @ moment
    power = (cross * weight).sum(dim=2)

    def lost(ridge: float | None) -> float:
        gram = moment[:, :40, :40]
        fit = refit(gram, cross[..., :40], weight[..., :40], power, strength_of(gram, rows, ridge))
        return float((others @ weight[0].T - others[:, kept] @ fit.weight[0].T).square().mean())

    best = min(lost(10.0**exponent) for exponent in range(-5, 3))
    assert lost(None) < 1.1 * best
    if rows < 100:
        assert lost(None) < 0.8 * lost(1e-3)


def test_weights_of_32_bits_are_solved_for_in_32_bits_without_a_loss() -> None:
    """Inputs of very different sizes, all with a common part, are the worst condition that is met."""
    generator = torch.Generator().manual_seed(0)
    scales = torch.logspace(-2, 1, 400, dtype=torch.float64)
    common = 10 * torch.randn(600, 1, generator=generator, dtype=torch.float64)
    inputs = (torch.randn(600, 400, generator=generator, dtype=torch.float64) + common) * scales
    weight = torch.randn(1, 30, 400, generator=generator, dtype=torch.float64) / scales
    moment = (inputs.T @ inputs / 600)[None]
    cross = weight @ moment
    power = (cross * weight).sum(dim=2)
    kept = torch.arange(0, 400, 2)
    gram = moment[:, kept][..., kept]
    strength = strength_of(gram, 600, None)
    long, short = (
        refit(gram, cross[..., kept], weight[..., kept], power, strength, dtype=dtype)
        for dtype in (torch.float64, torch.float32)
    )
    assert not torch.equal(long.weight, short.weight)
    outputs = inputs @ weight[0].T

    def lost(weight: Tensor) -> float:
        return float((outputs - inputs[:, kept] @ weight.T).square().mean())

    assert lost(short.weight[0].double()) == pytest.approx(lost(long.weight[0]), rel=1e-4)
    assert short.error == pytest.approx(long.error, rel=1e-2)
