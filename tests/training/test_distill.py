"""Distillation of class logits, dense prediction and regression: oracles, and whole searches."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune.data import seeded
from autoprune.errors import ConfigError
from autoprune.training import cross_entropy, holds_classes
from autoprune.training._distill import Distillation, distillation_loss
from autoprune.training.task import LossFunction


def test_distillation_loss_is_temperature_squared_kl() -> None:
    student, teacher = torch.randn(6, 5), torch.randn(6, 5)
    p, q = (teacher / 3).softmax(1), (student / 3).softmax(1)
    expected = 9 * (p * (p / q).log()).sum(1).mean()
    assert float(distillation_loss(student, teacher, 3.0)) == pytest.approx(float(expected), rel=1e-5)
    assert float(distillation_loss(teacher, teacher, 3.0)) == pytest.approx(0, abs=1e-6)


def test_of_dense_prediction_is_the_mean_of_its_positions() -> None:
    student, teacher = torch.randn(2, 3, 5, 7), torch.randn(2, 3, 5, 7)
    each = [
        distillation_loss(student[:, :, row, column], teacher[:, :, row, column], 4.0)
        for row in range(5)
        for column in range(7)
    ]
    whole = distillation_loss(student, teacher, 4.0)
    assert float(whole) == pytest.approx(float(torch.stack(each).mean()), rel=1e-5)


def test_the_gradient_leads_to_the_teacher() -> None:
    """At temperature 1 the gradient of KL in the student's logits is softmax(student) - softmax(teacher)."""
    student, teacher = torch.randn(2, 3, 4, 4, requires_grad=True), torch.randn(2, 3, 4, 4)
    (gradient,) = torch.autograd.grad(distillation_loss(student, teacher, 1.0), student)
    expected = (student.detach().softmax(1) - teacher.softmax(1)) / (2 * 4 * 4)
    assert torch.allclose(gradient, expected, atol=1e-6)


def scaled_l1(outputs: Tensor, targets: Tensor) -> Tensor:
    return 100 * functional.l1_loss(outputs, targets)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (6, 1, 4, 4)], ids=str)
def test_a_regression_follows_by_squared_error(shape: tuple[int, ...]) -> None:
    student, teacher, targets = torch.randn(shape, requires_grad=True), torch.randn(shape), torch.randn(shape)
    follow = Distillation(functional.mse_loss, 4.0)
    expected = functional.mse_loss(student, teacher)
    assert torch.allclose(follow(student, teacher, targets), expected)
    (gradient,) = torch.autograd.grad(follow(student, teacher, targets), student)
    assert torch.allclose(gradient, torch.autograd.grad(expected, student)[0])
    assert float(follow(teacher, teacher, targets)) == 0


def test_the_loss_of_a_regression_has_the_scale_of_the_tasks() -> None:
    """Towards targets that the teacher predicts exactly, both losses are the same number."""
    student, targets = torch.randn(64), torch.randn(64)
    follow = Distillation(scaled_l1, 4.0)
    assert float(follow(student, targets, targets)) == pytest.approx(float(scaled_l1(student, targets)))
    assert float(follow(targets, student, targets)) == pytest.approx(
        float(functional.mse_loss(student, targets))
    )


LABELS = torch.tensor([0, 2, 1, 1])


@pytest.mark.parametrize(
    ("loss", "outputs", "targets", "classes"),
    [
        (cross_entropy, torch.rand(4, 3), LABELS, True),
        (cross_entropy, torch.rand(4, 3), torch.rand(4, 3), True),
        (functional.cross_entropy, torch.rand(4, 3), torch.rand(4, 3), True),
        (nn.CrossEntropyLoss(), torch.rand(4, 3), torch.rand(4, 3), True),
        (functional.multi_margin_loss, torch.rand(4, 3), LABELS, True),
        (functional.nll_loss, torch.rand(4, 3, 5, 5), torch.zeros(4, 5, 5).long(), True),
        (functional.nll_loss, torch.rand(4, 3, 5, 5), torch.zeros(4, 1, 5, 5).long(), True),
        (functional.binary_cross_entropy_with_logits, torch.rand(4, 1), torch.rand(4), False),
        (functional.binary_cross_entropy_with_logits, torch.rand(4), LABELS, False),
        (functional.binary_cross_entropy_with_logits, torch.rand(4, 3), torch.ones(4, 3).long(), False),
        (functional.mse_loss, torch.rand(4), torch.rand(4), False),
        (functional.mse_loss, torch.rand(4, 1), torch.rand(4), False),
        (functional.mse_loss, torch.rand(4, 1, 5, 5), torch.rand(4, 5, 5), False),
    ],
)
def test_loss_and_batch_show_what_the_outputs_are(
    loss: LossFunction, outputs: Tensor, targets: Tensor, classes: bool
) -> None:
    assert holds_classes(loss, outputs, targets) is classes


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.rand(4, 9, 4), torch.rand(4, 4)),
        (torch.rand(4, 7, 3), torch.zeros(4, 7).long()),
        (torch.rand(4, 2), torch.rand(4)),
    ],
)
def test_outputs_of_another_kind_are_refused(outputs: Tensor, targets: Tensor) -> None:
    with pytest.raises(ConfigError, match=r"teacher: outputs \(4, .* cannot be distilled with targets"):
        Distillation(functional.mse_loss, 4.0)(outputs, outputs, targets)


def net(*head: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), *head)


def pooled(outputs: int) -> nn.Module:
    return net(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, outputs))


def loaders(targets_of: Callable[[Tensor], Tensor]) -> tuple[DataLoader[Any], ...]:
    images = torch.rand(96, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    parts = TensorDataset(images, targets_of(images)), TensorDataset(images[:32], targets_of(images[:32]))
    return tuple(DataLoader(part, batch_size=32) for part in (*parts, parts[1]))


def brightness(images: Tensor) -> Tensor:
    return images.mean((1, 2, 3))


def is_bright(images: Tensor) -> Tensor:
    return (images[:, 0] > 0.5).long()


def negative_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return -functional.mse_loss(outputs.flatten(), targets.flatten())


def flat_mse(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs.flatten(), targets.flatten())


def pixel_accuracy(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs.argmax(1) == targets).double().mean()


def first_of_each(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs[:, 0], targets)


HERE = __name__
CONFIG: dict[str, dict[str, Any]] = {
    "budget": {"flops": "60%"},
    "search": {
        "trials": 1,
        "study": "own",
        "sampler": "random",
        "warm_starts": [],
        "setting": "float32 contiguous",
        "divisor": 1,
    },
    "score": {"rungs": ["calibrate", "2 steps"], "teacher": "dense", "calibration_batches": 1},
    "race": {"entrants": 1},
    "finetune": {"epochs": 6},
}


@pytest.mark.parametrize(
    ("make", "targets_of", "loss", "metric"),
    [
        (lambda: net(nn.Conv2d(8, 2, 3, padding=1)), is_bright, "cross_entropy", "pixel_accuracy"),
        (lambda: nn.Sequential(pooled(1), nn.Flatten(0)), brightness, "flat_mse", "negative_error"),
        (lambda: pooled(1), brightness, "flat_mse", "negative_error"),
    ],
    ids=["dense prediction", "regression [n]", "regression [n, 1]"],
)
def test_a_search_and_its_finetune_follow_the_dense_model(
    make: Callable[[], nn.Module],
    targets_of: Callable[[Tensor], Tensor],
    loss: str,
    metric: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    own = loss if loss == "cross_entropy" else f"{HERE}:{loss}"
    config = {**CONFIG, "task": {"loss": own, "metric": f"{HERE}:{metric}"}}
    with seeded(0):
        model = make()
    result = autoprune.search(model, loaders(targets_of), config)
    tuned = autoprune.finetune("own", model=model, data=loaders(targets_of))
    assert tuned.val_score >= (result.best.score or 0)


def test_what_cannot_be_distilled_is_refused_before_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {**CONFIG, "task": {"loss": f"{HERE}:first_of_each", "metric": f"{HERE}:first_of_each"}}
    model = pooled(2)
    with pytest.raises(ConfigError, match="cannot be distilled"):
        autoprune.search(model, loaders(brightness), config)
    untaught = {"score": {**CONFIG["score"], "teacher": "none"}, "finetune": {"teacher": "none"}}
    result = autoprune.search(model, loaders(brightness), {**config, **untaught})
    assert result.best.score is not None
    with pytest.raises(ConfigError, match="cannot be distilled"):
        autoprune.finetune("own", model=model, data=loaders(brightness), overrides=["finetune.teacher=dense"])
