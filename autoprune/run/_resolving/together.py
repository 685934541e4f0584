"""Trains one model in all processes that torchrun started for a command.

Process 0 runs the command. The others load the data, train with it whenever it trains, and return its result.

Example:
    def lead(group: Group) -> FinetuneResult:
        announce(group, spec)                   # the others load the data meanwhile
        fit_together(group, model, dense.data, schedule, setting, task, seed=0)
        ...

    result = together(lead)
"""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from autoprune.data import UserLoaders, VisionData, wrap_loaders
from autoprune.errors import AutopruneError, DataError, LostProcessError, ProcessError
from autoprune.execution import Group, Setting, fit_to_machine, joined
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.support.threads import cpu_threads
from autoprune.support.userfunction import Imports, current_imports, importing
from autoprune.training import FitResult, Schedule, Task, fit

R = TypeVar("R")
GivenData = VisionData | UserLoaders | None


@dataclass(frozen=True)
class _Opening:
    """The settings with which the processes load the data, and the folder of the code that they name."""

    spec: RunSpec
    imports: Imports


@dataclass(frozen=True)
class _Training:
    """A training of `fit`, and the fingerprint of its data."""

    model: nn.Module
    schedule: Schedule
    setting: Setting
    task: Task
    seed: int
    teacher: nn.Module | None
    until: int | None
    data: str


@dataclass(frozen=True)
class _Done:
    result: Any


def together(lead: Callable[[Group], R], data: GivenData = None) -> R:
    """Call `lead` in process 0, let the others train with it, and return its result in all processes.

    Args:
        lead: the command. It calls `announce` before it loads anything, and `fit_together` to train.
        data: the data that a script passes, or None to load those that the settings name.

    Raises:
        ProcessError: this process cannot do its part. In process 0 the errors of `lead` pass.
    """
    with joined() as group:
        if not group.leads:
            result: R = _follow(group, data)
            return result
        result = lead(group)
        group.shared(_Done(result))
        return result


def announce(group: Group, spec: RunSpec) -> None:
    """Let the other processes load the data of a run while this one prepares the training.

    Raises:
        ConfigError: this machine has too few GPUs for its processes.
    """
    if group.size > 1:
        group.device(spec.device)
        group.shared(_Opening(spec.without_password(), current_imports()))


def fit_together(
    group: Group,
    model: nn.Module,
    data: VisionData,
    schedule: Schedule,
    setting: Setting,
    task: Task,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    until: int | None = None,
    **files_and_hooks: Any,
) -> FitResult:
    """Train a model with `fit` in all processes. The arguments are those of `fit`.

    Raises:
        AutopruneError: as from `fit`.
    """
    if group.size == 1:
        return fit(
            model,
            data,
            schedule,
            setting,
            task,
            seed=seed,
            teacher=teacher,
            until=until,
            **files_and_hooks,
        )
    plain = dataclasses.replace(task, dense=None)  # for the metric, which process 0 alone computes
    training = _Training(model, schedule, setting, plain, seed, teacher, until, data.fingerprint)
    group.shared(training)
    return _fit(group, dataclasses.replace(training, task=task), data, **files_and_hooks)


def _follow(group: Group, data: GivenData) -> Any:
    """Train with process 0 until it is done, and return its result."""
    try:
        loaded: VisionData | None = None
        while not isinstance(message := group.shared(), _Done):
            if isinstance(message, _Opening):
                loaded = _loaded(group, message, data)
            elif loaded is None or loaded.fingerprint != message.data:
                raise DataError(
                    "data: this process loaded other data than process 0. Give it the same files in the same "
                    "folder."
                )
            else:
                _fit(group, dataclasses.replace(message, setting=fit_to_machine(message.setting)), loaded)
        return message.result
    except LostProcessError:
        raise
    except AutopruneError as error:
        raise ProcessError(
            f"process {group.rank} of {group.size}, on {socket.gethostname()}: {error}"
        ) from error


def _loaded(group: Group, opening: _Opening, data: GivenData) -> VisionData:
    spec = opening.spec.with_search(device=group.device(opening.spec.device))
    with importing(opening.imports):
        if data is None:
            return load_dense(spec, trained=False).data  # and the code of the model, to unpickle one
        if isinstance(data, VisionData):
            return data
        batch_size = spec.data.batch_size
        return wrap_loaders(data, device=spec.device, batch_size=batch_size, prepare=spec.prepare)


def _fit(group: Group, training: _Training, data: VisionData, **files_and_hooks: Any) -> FitResult:
    setting = group.placed(training.setting)
    with cpu_threads(setting.threads):
        return fit(
            training.model,
            data,
            training.schedule,
            setting,
            training.task,
            seed=training.seed,
            teacher=training.teacher,
            until=training.until,
            group=group,
            **files_and_hooks,
        )
