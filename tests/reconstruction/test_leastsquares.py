from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge  # type: ignore[import-untyped]  # it has no hints
from torch import Tensor

from autoprune.reconstruction.leastsquares import refit, solve

ROWS, PATCH, OUTPUTS = 300, 8, 5
KEPT = torch.tensor([0, 2, 3, 6])


def problem(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Return correlated inputs [rows, patch], a weight [1, outputs, patch] and the inputs' second moment."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(PATCH, PATCH, generator=generator, dtype=torch.float64)
    inputs = torch.randn(ROWS, PATCH, generator=generator, dtype=torch.float64) @ mixing
    weight = torch.randn(1, OUTPUTS, PATCH, generator=generator, dtype=torch.float64)
    return inputs, weight, (inputs.T @ inputs / ROWS)[None]


def test_without_a_ridge_it_is_the_least_squares_solution() -> None:
    inputs, weight, moment = problem()
    expected = torch.linalg.lstsq(inputs[:, KEPT], inputs @ weight[0].T).solution.T
    torch.testing.assert_close(
        refit(moment, weight, KEPT, ridge=1e-14).weight[0], expected, rtol=1e-8, atol=1e-8
    )


def test_with_a_ridge_it_is_that_of_scikit_learn_on_the_residual() -> None:
    inputs, weight, moment = problem()
    ridge = 0.05
    cut = weight[0][:, KEPT]
    strength = ridge * float(moment[0][KEPT[:, None], KEPT].diagonal().mean()) * ROWS
    model = Ridge(alpha=strength, fit_intercept=False, solver="cholesky")
    model.fit(inputs[:, KEPT].numpy(), (inputs @ weight[0].T - inputs[:, KEPT] @ cut.T).numpy())
    fitted = refit(moment, weight, KEPT, ridge=ridge).weight[0]
    np.testing.assert_allclose(fitted.numpy(), cut.numpy() + model.coef_, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("seed", range(5))
def test_the_error_is_that_of_the_outputs_and_below_that_of_the_cut_weights(seed: int) -> None:
    inputs, weight, moment = problem(seed)
    fit = refit(moment, weight, KEPT)
    outputs = inputs @ weight[0].T

    def lost(new: Tensor) -> float:
        return float((outputs - inputs[:, KEPT] @ new.T).square().sum() / outputs.square().sum())

    assert fit.error == pytest.approx(lost(fit.weight[0]), rel=1e-9)
    assert fit.error < lost(weight[0][:, KEPT])


def test_all_inputs_keep_their_weights() -> None:
    _, weight, moment = problem()
    fit = refit(moment, weight, torch.arange(PATCH), ridge=0.1)
    torch.testing.assert_close(fit.weight, weight, rtol=0, atol=1e-12)
    assert fit.error == pytest.approx(0, abs=1e-12)


def test_inputs_that_are_always_zero_keep_their_weights() -> None:
    old = torch.ones(1, 2, 3, dtype=torch.float64)
    zeros = torch.zeros(1, 3, 3, dtype=torch.float64)
    assert torch.equal(solve(zeros, torch.zeros(1, 2, 3, dtype=torch.float64), old, ridge=1e-3), old)
