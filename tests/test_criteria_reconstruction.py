"""The criteria that ask how well the readers of a group do without a channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import lars_path  # type: ignore[import-untyped]  # it has no hints
from torch import Tensor, nn

from autoprune.criteria import Importance, importance
from autoprune.errors import DataError, PlanError
from autoprune.graph import Prunable
from autoprune.reconstruction import moments
from autoprune.reconstruction.readers import readers_of
from autoprune.tracing import trace

INPUTS = torch.randn(200, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Perceptron(nn.Module):
    """Two linear layers; `hidden` can be narrowed, and `head` alone reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(6, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.hidden(inputs)))
        return logits


def perceptron() -> Prunable:
    torch.manual_seed(0)
    return trace(Perceptron().double().eval(), INPUTS[:1])


def ranked(prunable: Prunable, criterion: str) -> Importance:
    return importance(prunable, criterion, [INPUTS])


@pytest.mark.parametrize("criterion", ["obs", "lasso"])
def test_a_copy_goes_before_anything_that_counts(criterion: str) -> None:
    prunable = perceptron()
    with torch.no_grad():
        for name in ("hidden.weight", "hidden.bias"):
            prunable.model.get_parameter(name)[2] = prunable.model.get_parameter(name)[7]
        prunable.model.get_parameter("hidden.weight")[5] = 0  # a constant is no loss: the bias takes it
    first, second = np.argsort(ranked(prunable, criterion)["hidden"])[:2]
    assert {int(first), int(second)} in ({2, 5}, {7, 5})


def test_a_reader_holds_the_covariance_of_its_inputs_and_its_weight() -> None:
    prunable = perceptron()
    measured = moments(prunable, [INPUTS])
    (group,) = (group for group in prunable.groups if group.name == "hidden")
    (reader,) = readers_of(prunable.model, group, measured)
    hidden = torch.relu(
        INPUTS @ prunable.model.get_parameter("hidden.weight").T + prunable.model.get_parameter("hidden.bias")
    )
    torch.testing.assert_close(reader.moment, torch.cov(hidden.detach().T, correction=0))
    assert torch.equal(reader.weight, prunable.model.get_parameter("head.weight").detach())
    assert reader.index.tolist() == [[channel] for channel in range(8)]


def test_lasso_enters_channels_in_the_order_of_scikit_learn_on_explicit_data() -> None:
    prunable = perceptron()
    model = prunable.model
    with torch.no_grad():
        hidden = torch.relu(model.get_submodule("hidden")(INPUTS))
        centred = hidden - hidden.mean(dim=0)
        # One column a channel: all that it contributes, over all samples and outputs.
        weight = model.get_parameter("head.weight")
        columns = (centred[:, None, :] * weight[None]).reshape(-1, 8).numpy()
    _, _, coefficients = lars_path(columns, columns.sum(axis=1), method="lasso")
    entered = (coefficients != 0).argmax(axis=1)
    values = ranked(prunable, "lasso")["hidden"]
    assert np.array_equal(np.argsort(entered, kind="stable"), np.argsort(-values))


@pytest.mark.parametrize("criterion", ["obs", "lasso"])
def test_data_that_is_missing_or_wrong_is_one_line(criterion: str) -> None:
    with pytest.raises(PlanError, match=f'criterion "{criterion}": needs images'):
        importance(perceptron(), criterion)
    with pytest.raises(DataError, match="moments: the data gave no images"):
        importance(perceptron(), criterion, [])
