"""Linear regression from running sums, for rows that do not fit into memory all at once.

Example:
    sums = Regression()
    sums.add(inputs, outputs)                   # float64 [groups, rows, patch] and [groups, rows, outputs]
    sums.solve(old_weight, ridge=None, constant=True).weight
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from autoprune.reconstruction._leastsquares import Fit, masked, refit, ridge_for, strength_for
from autoprune.reconstruction._uses import Cut


@dataclass(frozen=True, eq=False)
class Solution:
    """A weight and a constant.

    Attributes:
        fit: fit of the weight, about the means if there is a constant.
        mean: float64 [groups, outputs], mean of the outputs without the constant.
        constant: float64 [groups, outputs], or zeros if none was requested.
    """

    fit: Fit
    mean: Tensor
    constant: Tensor


@dataclass(eq=False)
class Regression:
    """Sums over rows of inputs x and target outputs y, for each group."""

    rows: int = 0
    _gram: Tensor | float = 0.0
    _cross: Tensor | float = 0.0
    _power: Tensor | float = 0.0
    _inputs: Tensor | float = 0.0
    _outputs: Tensor | float = 0.0

    def add(self, inputs: Tensor, outputs: Tensor) -> None:
        """Add rows.

        Args:
            inputs: float64 [groups, rows, patch].
            outputs: float64 [groups, rows, outputs].
        """
        self.rows += inputs.shape[1]
        self._gram = self._gram + inputs.mT @ inputs
        self._cross = self._cross + outputs.mT @ inputs
        self._power = self._power + outputs.square().sum(dim=1)
        self._inputs = self._inputs + inputs.sum(dim=1)
        self._outputs = self._outputs + outputs.sum(dim=1)

    def cut(self, cut: Cut) -> Regression:
        """Return the sums of a layer that keeps fewer inputs, and perhaps fewer outputs and groups."""

        def of_outputs(sums: Tensor | float) -> Tensor:
            # `cut.rows` numbers the outputs through all groups.
            flat = torch.as_tensor(sums).flatten(0, 1)[cut.rows]
            return flat.reshape(len(cut.groups), -1, *flat.shape[1:])

        gram = torch.as_tensor(self._gram)[cut.groups][:, cut.kept[:, None], cut.kept]
        inputs = torch.as_tensor(self._inputs)[cut.groups][:, cut.kept]
        cross = of_outputs(self._cross)[..., cut.kept]
        return Regression(self.rows, gram, cross, of_outputs(self._power), inputs, of_outputs(self._outputs))

    def means(self, *, constant: bool) -> tuple[Tensor, ...]:
        """Return the means of x x^T, y x^T, y^2, x and y, the first three about the means if `constant`."""
        sums = (self._gram, self._cross, self._power, self._inputs, self._outputs)
        gram, cross, power, x, y = (torch.as_tensor(each) / self.rows for each in sums)
        if constant:
            gram = gram - x[:, :, None] * x[:, None]
            cross = cross - y[:, :, None] * x[:, None]
            power = (power - y.square()).clamp_min(0)
        return gram, cross, power, x, y

    def solve(
        self, old: Tensor, *, ridge: float | None, constant: bool, zero: Tensor | None = None
    ) -> Solution:
        """Fit y = W x + c.

        Args:
            old: float64 [groups, outputs, patch], weights towards which the ridge pulls.
            ridge: strength of the ridge. See `refit`.
            constant: whether to fit c.
            zero: [groups, outputs, patch], True for the weights that are zero, or None.
        """
        gram, cross, power, x, y = self.means(constant=constant)
        if ridge is None:
            ridge = ridge_for(gram.shape[1], self.rows)
        fit = refit(gram, cross, old, power, strength_for(gram.diagonal(dim1=1, dim2=2), ridge))
        if zero is not None:
            fit = masked(fit, zero, gram, cross)
        mean = (fit.weight @ x[..., None])[..., 0]
        return Solution(fit, mean, y - mean if constant else torch.zeros_like(y))
