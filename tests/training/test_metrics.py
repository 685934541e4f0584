"""Metrics batch by batch: equal to those of the whole part, of a user's object and of a user's function."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as functional
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.training import Task, make_task
from autoprune.training._metrics import Meter, Metric, accuracy, kl, nll, top5

BATCHES = [5, 5, 3]
"""Sizes of the batches, the last one ragged."""


class MeanIoU(nn.Module):
    """Intersection over union, as torchmetrics has it: no mean of what single batches give."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.classes = classes
        self.reset()

    def reset(self) -> None:
        self.matches = torch.zeros(self.classes, self.classes)

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        pairs = outputs.argmax(1).flatten() * self.classes + targets.flatten()
        self.matches += pairs.bincount(minlength=self.classes**2).view(self.classes, self.classes)

    def compute(self) -> Tensor:
        both = self.matches.diag()
        return (both / (self.matches.sum(0) + self.matches.sum(1) - both).clamp(min=1)).mean()


class Bare:
    """The same without `reset`."""

    def __init__(self) -> None:
        self.inner = MeanIoU()

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.inner.update(outputs, targets)

    def compute(self) -> Tensor:
        return self.inner.compute()


def mean_iou(outputs: Tensor, targets: Tensor) -> Tensor:
    metric = MeanIoU()
    metric.update(outputs, targets)
    return metric.compute()


def part(*positions: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(sum(BATCHES), 4, *positions, generator=generator)
    return outputs, torch.randint(4, (sum(BATCHES), *positions), generator=generator)


def measured(metric: Metric, outputs: Tensor, targets: Tensor) -> float:
    return metered(Task(metric=metric), outputs, targets).compute()


def metered(task: Task, outputs: Tensor, targets: Tensor) -> Meter:
    meter = task.meter()
    for some_outputs, some_targets in zip(
        *(torch.split(each, BATCHES) for each in (outputs, targets)), strict=True
    ):
        meter.update(some_outputs, some_targets)
    return meter


@pytest.mark.parametrize("positions", [(), (3, 3)], ids=["classes", "dense prediction"])
@pytest.mark.parametrize("metric", [accuracy, top5, mean_iou])
def test_batches_give_exactly_what_the_whole_part_gives(
    metric: Callable[[Tensor, Tensor], Tensor], positions: tuple[int, ...]
) -> None:
    outputs, targets = part(*positions)
    assert measured(metric, outputs, targets) == float(metric(outputs, targets))


@pytest.mark.parametrize("metric", [MeanIoU, MeanIoU(), Bare], ids=["class", "object", "without reset"])
def test_an_object_that_is_updated_gives_what_it_gives_for_the_whole_part(metric: Metric) -> None:
    outputs, targets = part()
    for _ in range(2):  # a second part starts from nothing
        assert measured(metric, outputs, targets) == float(mean_iou(outputs, targets))


def test_the_users_object_stays_as_it_is() -> None:
    metric = MeanIoU()
    measured(metric, *part())
    assert not metric.matches.any()


def test_a_metric_by_the_name_of_its_class_travels_to_a_worker() -> None:
    task = pickle.loads(pickle.dumps(make_task(metric=f"{__name__}:MeanIoU")))
    assert task.measure(*part()) == float(mean_iou(*part()))


class NeedsClasses(MeanIoU):
    """A class that cannot be made by its name alone."""

    def __init__(self, classes: int) -> None:
        super().__init__(classes)


class GivesText(MeanIoU):
    """Computes something else than a number."""

    def compute(self) -> Tensor:
        return "0.5"  # type: ignore[return-value]  # the mistake


class Refuses(MeanIoU):
    """Raises at the first batch."""

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        raise ValueError("no such class")


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (NeedsClasses, 'NeedsClasses" cannot be made without arguments and reset: TypeError: .*classes'),
        (GivesText, '" failed to compute a number: TypeError: it returned a str, expected one number'),
        (Refuses, r'Refuses" failed on outputs \(13, 4\) and targets \(13,\) .*: ValueError: no such class'),
    ],
)
def test_an_object_that_fails_is_named_in_one_line(metric: Metric, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^task.metric: .*{message}"):
        Task(metric=metric).measure(*part())


def of_each_sample(metric: str, outputs: Tensor, targets: Tensor) -> np.ndarray:
    """The value of a metric on each sample by definition."""
    if metric == "accuracy":
        values = (outputs.argmax(1) == targets).double()
    elif metric == "nll":
        values = outputs.double().log_softmax(1).gather(1, targets[:, None])[:, 0]
    else:
        ours, dense = (each.double().softmax(1) for each in (outputs, targets))
        values = -(dense * (dense / ours).log()).sum(1)
    return values.flatten(1).mean(1).numpy() if values.ndim > 1 else values.numpy()


@pytest.mark.parametrize("positions", [(), (3, 3)], ids=["classes", "dense prediction"])
@pytest.mark.parametrize("metric", ["accuracy", "nll", "kl"])
def test_a_mean_over_samples_knows_each_of_them(metric: str, positions: tuple[int, ...]) -> None:
    outputs, targets = part(*positions)
    if metric == "kl":
        targets = outputs.flip(0) * 1.5
    meter = metered(make_task(metric=metric), outputs, targets)
    samples, expected = meter.samples(), of_each_sample(metric, outputs, targets)
    assert meter.compute() == pytest.approx(expected.mean(), rel=1e-6)
    assert samples is not None
    np.testing.assert_allclose(samples.numpy(), expected, rtol=1e-5)


def test_plain_functions_equal_their_meters() -> None:
    outputs, targets = part()
    assert float(nll(outputs, targets)) == pytest.approx(measured(nll, outputs, targets))
    assert float(kl(outputs, outputs + targets[:, None])) == pytest.approx(0, abs=1e-12)
    assert str(measured(kl, outputs, outputs)) == "0.0"  # and not -0.0


def test_nll_is_the_negative_loss_of_the_task() -> None:
    outputs, targets = part()
    values = targets[:, None].expand(-1, 4).float()
    meter = metered(make_task(loss=functional.mse_loss, metric="nll"), outputs, values)
    assert meter.compute() == pytest.approx(-float(functional.mse_loss(outputs, values)))
    assert meter.samples() is None
    with pytest.raises(ConfigError, match=r"task\.loss: .*mse_loss.* failed on outputs \(5, 4\)"):
        metered(make_task(loss=functional.mse_loss, metric="nll"), outputs, values[:, :0])
