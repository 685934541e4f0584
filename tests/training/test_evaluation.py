"""Evaluation and BatchNorm recalibration against plain torch."""

from __future__ import annotations

import dataclasses
import weakref

import pytest
import torch
from torch import Tensor, nn

from autoprune.data import load, seeded
from autoprune.errors import ConfigError, TrialError
from autoprune.execution import Setting
from autoprune.training import Task, evaluate, make_task, measure, recalibrate
from autoprune.training._metrics import nll
from autoprune.zoo import make_model

DATA = load("digits", batch_size=32)
SETTING = Setting()


class Net(nn.Module):
    """One BatchNorm in use, one that the forward pass never reaches, and dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.unreached = nn.BatchNorm1d(3)
        self.dropout = nn.Dropout(0.5)
        self.fc = nn.Linear(144, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.dropout(self.norm(self.conv(inputs)).relu()).flatten(1))
        return logits


def net() -> Net:
    with seeded(0):
        return Net()


def test_evaluate_equals_a_loop() -> None:
    model = make_model("digits_resnet", 10, 1).train()
    model.eval()
    right = sum(int((model(inputs).argmax(1) == targets).sum()) for inputs, targets in DATA.val)
    model.train()
    assert evaluate(model, DATA.val, Task(), SETTING) == pytest.approx(right / DATA.val.samples)


def pixel_mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.mean()


def test_the_samples_of_a_mean_metric_give_the_score_and_its_standard_error() -> None:
    model = make_model("digits_resnet", 10, 1).eval()
    hits = torch.cat([model(inputs).argmax(1) == targets for inputs, targets in DATA.val]).double()
    found = measure(model, DATA.val, Task(), SETTING)
    assert found.samples is not None
    assert torch.equal(found.samples.double(), hits)
    assert found.standard_error == pytest.approx(float(hits.std()) / len(hits) ** 0.5)
    other = measure(model, DATA.val, Task(metric=pixel_mean), SETTING)
    assert (other.samples, other.standard_error) == (None, None)


def test_kl_compares_with_the_dense_model_on_the_same_images() -> None:
    model, dense = net(), net()
    with torch.no_grad():
        dense.fc.bias.add_(torch.arange(10) / 10)
    task = make_task(metric="kl")
    with pytest.raises(ConfigError, match='"kl" compares with the dense model, and the task has none'):
        evaluate(model, DATA.val, task, SETTING)
    task = dataclasses.replace(task, dense=dense.train())
    found = measure(model, DATA.val, task, SETTING)
    batches = [inputs for inputs, _ in DATA.val]
    with torch.no_grad():
        ours, theirs = (
            torch.cat([each.eval()(inputs) for inputs in batches]).double().log_softmax(1)
            for each in (model, dense)
        )
    values = -(theirs.exp() * (theirs - ours)).sum(1)
    assert found.score == pytest.approx(float(values.mean()))
    assert found.standard_error == pytest.approx(float(values.std()) / len(values) ** 0.5)
    assert evaluate(dense, DATA.val, task, SETTING) == 0
    assert task.of_dense.metric is nll  # a model in training would be compared with itself
    assert make_task().of_dense == make_task()


class Watched:
    """Counts what is alive of the outputs that it was given."""

    most_alive = 0

    def __init__(self) -> None:
        self.seen: list[weakref.ref[Tensor]] = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        alive = sum(reference() is not None for reference in self.seen)
        Watched.most_alive = max(Watched.most_alive, alive)
        self.seen.append(weakref.ref(outputs))
        outputs.sigmoid_()  # a metric may write into what it is given

    def compute(self) -> float:
        return float(len(self.seen))


def test_a_metric_that_is_updated_keeps_no_outputs() -> None:
    assert len(DATA.train) > 3
    assert evaluate(net(), DATA.train, Task(metric=Watched), SETTING) == len(DATA.train)
    assert Watched.most_alive <= 1  # the last batch may still have its name


def test_accuracy_keeps_no_outputs() -> None:
    """Of dense prediction with many classes, outputs outweigh all else."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    class Counting(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            nonlocal most
            outputs = torch.randn(len(inputs), 10)
            most = max(most, sum(reference() is not None for reference in alive))
            alive.append(weakref.ref(outputs))
            return outputs

    evaluate(Counting(), DATA.train, Task(), SETTING)
    assert len(alive) == len(DATA.train)
    assert most <= 1


def test_evaluate_keeps_modes_and_weights() -> None:
    model = net().train()
    model.norm.eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    evaluate(model, DATA.val, Task(), SETTING)
    assert [name for name, module in model.named_modules() if not module.training] == ["norm"]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_outputs_that_are_not_finite_are_a_failed_trial() -> None:
    model = net()
    nn.init.constant_(model.fc.bias, float("nan"))
    with pytest.raises(TrialError, match=r"diverged: the model's outputs are not finite"):
        evaluate(model, DATA.val, Task(), SETTING)


def test_recalibrated_statistics_are_plain_means_over_the_batches() -> None:
    model = net().train()
    recalibrate(model, DATA.train, 5, SETTING, seed=3)
    means, variances = [], []
    batches = DATA.train.batches(3, 0)
    for _ in range(5):
        with torch.no_grad():
            hidden = model.conv(next(batches)[0])
        means.append(hidden.mean((0, 2, 3)))
        variances.append(hidden.var((0, 2, 3)))
    statistics = dict(model.norm.named_buffers())
    assert torch.allclose(statistics["running_mean"], torch.stack(means).mean(0), atol=1e-6)
    assert torch.allclose(statistics["running_var"], torch.stack(variances).mean(0), atol=1e-6)
    assert model.norm.momentum == 0.1
    assert all(module.training for module in model.modules())


def test_recalibration_changes_nothing_else() -> None:
    model = net().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recalibrate(model, DATA.train, 2, SETTING)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert not any(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_more_batches_than_an_epoch_go_on_with_the_next() -> None:
    model = net()
    recalibrate(model, DATA.train, len(DATA.train) + 3, SETTING)
    assert int(model.state_dict()["norm.num_batches_tracked"]) == len(DATA.train) + 3


def test_layers_that_no_batch_reaches_keep_their_statistics() -> None:
    model = net()
    model.load_state_dict({**model.state_dict(), "unreached.running_mean": torch.full((3,), 7.0)})
    recalibrate(model, DATA.train, 2, SETTING)
    assert model.state_dict()["unreached.running_mean"].tolist() == [7, 7, 7]


def test_models_without_batchnorm_stay() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    recalibrate(model, DATA.train, 2, SETTING)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
