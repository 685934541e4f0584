"""Turns [train], [finetune] and their like into schedules, and reports the epochs of a training.

Example:
    schedule_of(FinetuneSettings(epochs=5)).epochs       # 5
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Iterator

from autoprune.config.settings import (
    FinetuneSettings,
    ScheduleSettings,
    SparsifySettings,
    SupernetSettings,
)
from autoprune.errors import ConfigError, TrialError, unknown
from autoprune.support.events import Counted, EpochDone, Stage, Watcher
from autoprune.training import OPTIMIZERS, SHAPES, EpochRecord, Schedule

_STEPS_EVERY_S = 1.0
"""Seconds between two events about steps. A watcher such as `print` would get a line for each step else."""


@contextlib.contextmanager
def naming_learning_rate(settings: ScheduleSettings) -> Iterator[None]:
    """Add the key of the learning rate to the error of a training that diverges in the block.

    Raises:
        TrialError: the training diverged.
    """
    try:
        yield
    except TrialError as error:
        raise TrialError(
            f"{_section_of(settings)}: {error} Set {_section_of(settings)}.learning_rate below "
            f"{settings.learning_rate:g} and run the same command again."
        ) from error


def _section_of(settings: ScheduleSettings) -> str:
    names = {
        FinetuneSettings: "finetune",
        SparsifySettings: "sparsify",
        SupernetSettings: "score.supernet",
    }
    return names.get(type(settings), "train")


def schedule_of(settings: ScheduleSettings) -> Schedule:
    """Turn a [train], [finetune], [sparsify] or [score.supernet] section into a schedule.

    Raises:
        ConfigError: the optimiser or the schedule is unknown. The message names the key of the section.
    """
    section = _section_of(settings)
    for key, name, known in (
        ("optimizer", settings.optimizer, list(OPTIMIZERS)),
        ("schedule", settings.schedule, list(SHAPES)),
    ):
        if name not in known:
            raise ConfigError(unknown(f"{section}.{key}", name, known))
    known_keys = {spec.name for spec in dataclasses.fields(Schedule)}
    values = dataclasses.asdict(settings)
    return Schedule(**{name: value for name, value in values.items() if name in known_keys})


def step_reporter(watch: Watcher) -> Callable[[int, int], None]:
    """Return a function that reports the steps of long epochs to a watcher, at most one a second.

    Args:
        watch: called with events.
    """
    last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _STEPS_EVERY_S:
            last = now
            watch(Counted("steps of the epoch", done, total))

    return report


def epoch_reporter(epochs: int, watch: Watcher) -> Callable[[EpochRecord], None]:
    """Return a function that reports each epoch of a training to a watcher.

    It also warns at the first score that is not finite. A metric may be undefined for a model that has learnt
    little, but a search refuses such a score of the dense model.

    Args:
        epochs: length of the training.
        watch: called with an event for each epoch.
    """
    warned = False

    def report(record: EpochRecord) -> None:
        nonlocal warned
        watch(EpochDone(record.epoch, epochs, record.loss, record.score, record.seconds))
        if not math.isfinite(record.score) and not warned:
            warned = True
            watch(
                Stage(
                    f"warning: task.metric is {record.score} on the validation part after epoch "
                    f"{record.epoch}, and a search needs a finite score of the trained model"
                )
            )

    return report
