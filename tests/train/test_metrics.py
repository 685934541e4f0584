"""Metrics batch by batch: equal to those of the whole part, of a user's object and of a user's function."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.train import Task, make_task
from autoprune.train._metrics import Metric, accuracy, meter_of, top5

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
    meter = meter_of(metric)
    for some_outputs, some_targets in zip(
        *(torch.split(each, BATCHES) for each in (outputs, targets)), strict=True
    ):
        meter.update(some_outputs, some_targets)
    return meter.compute()


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
