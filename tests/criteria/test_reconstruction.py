"""The criteria that ask how well the readers of a group do without a channel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import lars_path  # type: ignore[import-untyped]  # it has no hints
from torch import Tensor, nn

from autoprune.criteria import Importance, Rule, importance, make_plan
from autoprune.errors import DataError, PlanError
from autoprune.graph import Prunable
from autoprune.reconstruction import Readers, eliminate, exchange, moments
from autoprune.tracing import trace
from tests.models import Residual

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
    (reader,) = Readers(prunable.model, measured).of(group)
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


def stream(copied: tuple[str, ...]) -> tuple[Prunable, Tensor]:
    """Return a residual net whose stream channel 2 copies channel 5 in these layers, and images."""
    torch.manual_seed(0)
    model = Residual().double().eval()
    prunable = trace(model, torch.zeros(1, 3, 4, 4, dtype=torch.float64))
    with torch.no_grad():
        model.bn.weight.uniform_(0.5, 2)
        for layer in copied:
            for tensor in model.get_submodule(layer).state_dict().values():
                if tensor.ndim:
                    tensor[2] = tensor[5]
    generator = torch.Generator().manual_seed(1)
    return prunable, torch.randn(40, 3, 4, 4, generator=generator, dtype=torch.float64)


def test_all_layers_that_read_a_residual_stream_are_its_readers() -> None:
    prunable, images = stream(())
    readers = Readers(prunable.model, moments(prunable, [images])).of(prunable.group("stem"))
    assert [reader.weight.shape for reader in readers] == [(6, 8), (5, 8)]  # inner1 and head


def test_a_copy_in_the_whole_residual_stream_goes_first() -> None:
    prunable, images = stream(("stem", "outer1", "bn"))
    assert int(np.argmin(importance(prunable, "obs", [images])["stem"])) in (2, 5)


def test_a_copy_for_one_reader_alone_stays() -> None:
    prunable, images = stream(("stem",))
    group = prunable.group("stem")
    with torch.no_grad():  # the branch adds to the two what the head reads, with opposite signs
        weight = prunable.model.get_parameter("outer1.weight")
        weight[5] *= 20
        weight[2] = -weight[5]
        prunable.model.get_parameter("head.weight")[:, [2, 5]] *= 50
    readers = Readers(prunable.model, moments(prunable, [images])).of(group)
    assert eliminate(readers[:1], group.width).order[0] in (2, 5)
    assert int(np.argmin(importance(prunable, "obs", [images])["stem"])) not in (2, 5)


def test_lasso_stacks_the_outputs_of_all_readers_of_a_residual_stream() -> None:
    prunable, images = stream(())
    model = prunable.model
    assert isinstance(model, Residual)
    with torch.no_grad():
        x = model.stem(images).relu()
        total = x + model.bn(model.outer1(model.inner1(x).relu()))
        readers = [
            (x.permute(0, 2, 3, 1).reshape(-1, 8), model.inner1.weight.flatten(1)),
            (total.mean((2, 3)), model.head.weight),
        ]
        stacked = []
        for inputs, weight in readers:
            columns = ((inputs - inputs.mean(0))[:, None] * weight).reshape(-1, 8)
            stacked.append(columns / columns.sum(1).norm())
    columns = torch.cat(stacked).numpy()
    _, _, coefficients = lars_path(columns, columns.sum(axis=1), method="lasso")
    entered = (coefficients != 0).argmax(axis=1)
    values = importance(prunable, "lasso", [images])["stem"]
    assert np.array_equal(np.argsort(entered, kind="stable"), np.argsort(-values))


def test_a_plan_for_known_widths_keeps_the_channels_that_swaps_reach() -> None:
    prunable, images = stream(())
    group = prunable.group("stem")
    readers = Readers(prunable.model, moments(prunable, [images])).of(group)
    order = eliminate(readers, group.width).order
    differ = 0
    for width in range(1, group.width):
        plan = make_plan(prunable, {"stem": width}, "obs", [images])
        expected = exchange(readers, order[group.width - width :])
        np.testing.assert_array_equal(plan["stem"], expected)
        differ += not np.array_equal(expected, np.sort(order[group.width - width :]))
    assert differ > 0


class Deep(nn.Module):
    """Three linear layers, two of which can be narrowed."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 7), nn.Linear(7, 5)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(torch.relu(self.second(torch.relu(self.first(inputs)))))
        return logits


def path(inputs: Tensor, weight: Tensor, target: Tensor, kept: int) -> Tensor:
    """Return the first channels on the LASSO path that scikit-learn computes from explicit columns."""
    columns = (inputs - inputs.mean(0))[:, None] * weight[None]
    scale = float(columns.sum(2).norm())
    flat, aims = columns.reshape(-1, columns.shape[2]) / scale, (target - target.mean(0)).flatten() / scale
    _, _, coefficients = lars_path(flat.numpy(), aims.numpy(), method="lasso")
    entered = np.where((coefficients != 0).any(axis=1), (coefficients != 0).argmax(axis=1), np.inf)
    return torch.from_numpy(np.sort(entered.argsort(kind="stable")[:kept]))


def refitted(inputs: Tensor, weight: Tensor, target: Tensor) -> Tensor:
    """Return the outputs of a layer that is refitted to targets, pulled a little towards its weight."""
    x, y = inputs - inputs.mean(0), target - target.mean(0)
    gram = x.T @ x / len(x)
    ridge = 0.5 * len(gram) / len(x) * gram.diagonal().mean()
    fitted = (y.T @ x / len(x) + ridge * weight) @ torch.linalg.inv(gram + ridge * torch.eye(len(gram)))
    outputs: Tensor = x @ fitted.T + target.mean(0)
    return outputs


def test_lasso_by_layers_reads_the_refitted_layers_and_aims_at_the_dense_outputs() -> None:
    torch.manual_seed(0)
    model = Deep().double().eval()
    prunable = trace(model, INPUTS[:1])
    widths = {"first": 4, "second": 3}
    plan = make_plan(prunable, widths, "lasso", [INPUTS], rule=Rule(ranking="greedy"))
    with torch.no_grad():
        first = torch.relu(model.first(INPUTS))
        second = model.second(first)
        kept = path(first, model.second.weight, second, 4)
        assert plan["first"].tolist() == kept.tolist()
        narrowed = torch.relu(refitted(first[:, kept], model.second.weight[:, kept], second))
        dense = model.head(torch.relu(second))
        assert plan["second"].tolist() == path(narrowed, model.head.weight, dense, 3).tolist()


def test_lasso_by_layers_gives_exact_widths_on_a_residual_stream_and_leaves_the_model() -> None:
    prunable, images = stream(())
    before = {name: tensor.clone() for name, tensor in prunable.model.state_dict().items()}
    plan = make_plan(prunable, {"stem": 5, "inner1": 2}, "lasso", [images], rule=Rule(ranking="greedy"))
    assert plan.widths == {"stem": 5, "inner1": 2}
    np.testing.assert_array_equal(plan["stem"], make_plan(prunable, {"stem": 5}, "lasso", [images])["stem"])
    assert all(torch.equal(tensor, before[name]) for name, tensor in prunable.model.state_dict().items())
