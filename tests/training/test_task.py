"""Losses and metrics by name, and the user's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from autoprune.errors import ConfigError
from autoprune.training import Task, main_output, make_task
from autoprune.training._metrics import Metric, accuracy, top5
from autoprune.training.task import LossFunction, batch_loss

LOGITS = torch.tensor([[2.0, 1.0, 0.0], [0.0, 3.0, 1.0], [0.0, 1.0, 5.0], [1.0, 0.0, 0.5]])
LABELS = torch.tensor([0, 1, 2, 1])


def own_metric(outputs: Tensor, targets: Tensor) -> float:
    return 7.0


def test_accuracy_counts_the_largest_logit() -> None:
    assert float(accuracy(LOGITS, LABELS)) == 0.75


def test_top5_of_ten_classes() -> None:
    logits = torch.arange(10.0).repeat(4, 1)
    assert float(top5(logits, torch.tensor([9, 5, 4, 0]))) == 0.5


def test_cross_entropy_of_uniform_logits_is_the_log_of_the_classes() -> None:
    loss = make_task().loss(torch.zeros(5, 8), torch.arange(5))
    assert float(loss) == pytest.approx(math.log(8))


def test_smoothing_matches_soft_targets() -> None:
    soft = torch.full((4, 3), 0.1 / 3)
    soft[torch.arange(4), LABELS] += 0.9
    expected = -(soft * LOGITS.log_softmax(1)).sum(1).mean()
    assert float(Task().smoothed(0.1).loss(LOGITS, LABELS)) == pytest.approx(float(expected))


def test_smoothing_a_loss_of_the_users_is_refused() -> None:
    task = make_task(loss=lambda outputs, targets: outputs.sum())
    assert task.smoothed(0.0) is task
    with pytest.raises(ConfigError, match=r"label_smoothing: got 0.1, but only cross_entropy supports it"):
        task.smoothed(0.1)


def test_the_users_metric_by_name() -> None:
    assert make_task(metric=f"{__name__}:own_metric").measure(LOGITS, LABELS) == 7.0


def two_arguments_are_too_many(outputs: Tensor) -> float:
    return 1.0


@pytest.mark.parametrize(
    ("metric", "reason"),
    [
        (two_arguments_are_too_many, "TypeError: two_arguments_are_too_many() takes 1 positional argument"),
        (lambda outputs, targets: "0.9", "TypeError: it returned a str, expected one number"),
        (lambda outputs, targets: outputs, "Error: "),
        (lambda outputs, targets: dict[str, float]()["auc"], "KeyError: 'auc'"),
    ],
)
def test_a_metric_that_fails_is_named_in_one_line(metric: Metric, reason: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Task(metric=metric).measure(LOGITS, LABELS)
    text = str(raised.value)
    assert text.startswith(f'task.metric: "{__name__}:')
    assert "failed on outputs (4, 3) and targets (4,) (torch.int64): " in text
    assert reason in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("loss", "reason"),
    [
        (lambda outputs, targets: outputs, r"it returned a tensor \(2, 3\), expected a tensor of one number"),
        (lambda outputs, targets: 1.0, "it returned a float, expected a tensor of one number"),
        (lambda outputs, targets: outputs.sum().detach(), "its value has no gradient"),
        (lambda outputs, targets: outputs.sum() * 1j, "it returned a complex number, expected a real one"),
    ],
)
def test_a_loss_that_backward_cannot_start_from_is_named(loss: LossFunction, reason: str) -> None:
    outputs = torch.zeros(2, 3, requires_grad=True)
    with pytest.raises(ConfigError, match=rf"^task\.loss: .*{reason}"):
        batch_loss(loss, outputs, torch.zeros(2).long())


def test_unknown_metric_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'task.metric: unknown name "acuracy"\. Did you mean "accuracy"'):
        make_task(metric="acuracy")


def test_main_output_is_the_first_of_several() -> None:
    assert main_output((LOGITS, LABELS)) is LOGITS
    assert main_output({"out": LOGITS}) is LOGITS
    with pytest.raises(ConfigError, match=r"its output is a NoneType"):
        main_output(None)
