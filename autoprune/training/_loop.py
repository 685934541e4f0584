"""The full training, which evaluates the model and saves its state after each epoch. The last epoch counts.

Example:
    result = fit(model, data, Schedule(epochs=30), setting, Task(), seed=0, checkpoint=Path("state.pt"))
    result.score        # metric on the validation part after the last epoch
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autoprune.data import (
    Batch,
    VisionData,
    from_storable,
    model_seed,
    random_states,
    restore_random_states,
    seeded,
    share_of,
    stream_seed,
    to_storable,
)
from autoprune.errors import TrialError
from autoprune.execution import ALONE, Group, Setting
from autoprune.training._evaluation import measure
from autoprune.training._hooks import StepHook
from autoprune.training._schedule import Schedule
from autoprune.training._trainer import Subnets, Trainer
from autoprune.training._training_state import load_state, save_pth, save_state, weights_hash
from autoprune.training.task import Task


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean training loss, validation metric, and wall seconds including the evaluation.

    `standard_error` is that of the score over the draw of the samples, or None if it is not known.
    """

    epoch: int
    steps: int
    loss: float
    score: float
    learning_rate: float
    seconds: float
    standard_error: float | None = None


@dataclass(frozen=True)
class FitResult:
    """The result of a training: the validation metric after the last epoch, and a record of each epoch."""

    score: float
    records: tuple[EpochRecord, ...]

    @property
    def seconds(self) -> float:
        """Wall seconds of all epochs, including evaluations."""
        return sum(record.seconds for record in self.records)


def fit(
    model: nn.Module,
    data: VisionData,
    schedule: Schedule,
    setting: Setting,
    task: Task,
    *,
    seed: int,
    teacher: nn.Module | None = None,
    subnets: Subnets | None = None,
    hooks: Sequence[StepHook] = (),
    on_epoch: Callable[[EpochRecord], None] | None = None,
    on_step: Callable[[int, int], None] | None = None,
    checkpoint: Path | None = None,
    until: int | None = None,
    pth: Path | None = None,
    group: Group = ALONE,
) -> FitResult:
    """Train `model` in place on data.train and evaluate it on data.val after each epoch.

    If the file `checkpoint` exists, training continues from its state. The state must belong to a training
    with the same weights, teacher, sub-nets, hooks, data, batches, loss, schedule and seed. On a CPU the
    result is bit-identical to that of an uninterrupted training. The global random states do not change.

    Args:
        model: the model to train. If the schedule averages weights, it holds the average at the end.
        data: the data, of which data.test is not used.
        schedule: length, learning rate, optimiser and the like.
        setting: how forward and backward passes run.
        task: the loss and the metric.
        seed: seed of the batches and of all randomness in the model.
        teacher: a model to distill from, with the schedule's distill_weight. It is put into eval mode.
        subnets: sub-nets of the model to train with it.
        hooks: hooks that act around each step, in this order.
        on_epoch: called with the record of each epoch that this call trains.
        on_step: called after each step but the last of an epoch, with the numbers of steps that are done in
            it and of all.
        checkpoint: file for the state of the training, which is written after each epoch.
        until: the epoch after which to stop. A later call with the same checkpoint continues exactly, because
            the learning rate follows the whole schedule. By default the whole schedule is trained.
        pth: file for the usual dict of "epoch", "optimizer" and "state_dict", written after each epoch.
        group: the processes that call this together, with equal models. Batches are those of one process, and
            each process computes its share of them. Process 0 alone evaluates, and reads and writes files.

    Raises:
        TrialError: if the loss is not finite.
        LostProcessError: if another process of the group is gone.
        CheckpointError: if the checkpoint is corrupt, belongs to another training, or cannot be written.
    """
    total = schedule.total_steps(len(data.train))
    last = total if until is None else min(total, until * len(data.train))
    if teacher is not None:
        setting.place(teacher).eval()
    # Of the weights before a hook begins to change them.
    identity = _identity(schedule, model, teacher, subnets, hooks)
    identity |= _identity_of_steps(data, setting, task, seed)
    trainer = Trainer(
        model,
        schedule,
        setting,
        task,
        total_steps=total,
        teacher=teacher,
        subnets=subnets,
        hooks=hooks,
        group=group,
    )
    data = dataclasses.replace(data, train=share_of(data.train, group))
    with seeded(model_seed(seed)):
        records = _restore(trainer, checkpoint, identity, group)
        while trainer.steps < last:
            record = _run_epoch(
                trainer, data, setting, task, seed=seed, last=last, group=group, on_step=on_step
            )
            records.append(record)
            if not group.leads:
                continue
            _save(trainer, records, checkpoint, pth, identity)
            if on_epoch is not None:
                on_epoch(record)
    model.zero_grad(set_to_none=True)
    if trainer.result is not model:
        model.load_state_dict(trainer.result.state_dict())
    return FitResult(records[-1].score, tuple(records))


def _identity(
    schedule: Schedule,
    model: nn.Module,
    teacher: nn.Module | None,
    subnets: Subnets | None,
    hooks: Sequence[StepHook],
) -> dict[str, str]:
    """Return the facts about the start of a training that must be equal when it is resumed."""
    return {
        **{name: str(value) for name, value in dataclasses.asdict(schedule).items() if value != ()},
        "model": weights_hash(model),
        "teacher": weights_hash(teacher) if teacher is not None else "none",
        **({"subnets": subnets.identity} if subnets is not None else {}),
        **{f"hook {number}": hook.identity for number, hook in enumerate(hooks, start=1)},
    }


def _identity_of_steps(data: VisionData, setting: Setting, task: Task, seed: int) -> dict[str, str]:
    """Return the facts that each step depends on, which must be equal too."""
    return {
        "dtype": setting.dtype,
        "seed": str(seed),
        "data": data.fingerprint,
        "batches": f"{len(data.train)} an epoch, augmented by {data.augmentation}",
        "loss": task.training_code,
    }


def _restore(
    trainer: Trainer, checkpoint: Path | None, identity: Mapping[str, str], group: Group
) -> list[EpochRecord]:
    """Restore trainer and random states of a stopped training, and return the records of its epochs."""
    state = group.shared(load_state(checkpoint, identity) if checkpoint and group.leads else None)
    if state is None:
        return []
    trainer.restore(state["trainer"])
    restore_random_states(from_storable(state["random"]))
    records = [EpochRecord(**record) for record in state["records"]]
    trainer.best_score = max(record.score for record in records)
    return records


def _save(
    trainer: Trainer,
    records: Sequence[EpochRecord],
    checkpoint: Path | None,
    pth: Path | None,
    identity: Mapping[str, str],
) -> None:
    """Write the files of a training that are wanted, after an epoch."""
    if pth is not None:
        save_pth(pth, records[-1].epoch, trainer.result, trainer.optimizer_state)
    if checkpoint is None:
        return
    kept = [dataclasses.asdict(each) for each in records]
    state = {"trainer": trainer.state(), "records": kept, "random": to_storable(random_states())}
    save_state(checkpoint, identity, state)


def _run_epoch(
    trainer: Trainer,
    data: VisionData,
    setting: Setting,
    task: Task,
    *,
    seed: int,
    last: int,
    group: Group,
    on_step: Callable[[int, int], None] | None,
) -> EpochRecord:
    """Train an epoch, or up to the step `last`, and evaluate the model."""
    started = time.perf_counter()
    learning_rate = trainer.learning_rate
    epoch = trainer.steps // len(data.train)
    # Dropout in other processes must differ from that in process 0, whose random states are saved.
    own_seed = stream_seed(model_seed(seed), epoch, group.rank)
    own = contextlib.nullcontext() if group.leads else seeded(own_seed)
    record = None
    try:
        with own:
            steps = min(len(data.train), last - trainer.steps)
            batches = data.train.batches(seed, epoch)
            counted = batches if on_step is None else _counted(batches, steps, on_step)
            loss = trainer.run(counted, steps)
        if group.leads:
            found = measure(trainer.result, data.val, task, setting)
            seconds = time.perf_counter() - started
            record = EpochRecord(
                epoch + 1, trainer.steps, loss, found.score, learning_rate, seconds, found.standard_error
            )
    except TrialError as error:
        raise TrialError(f"epoch {epoch + 1}: {error}") from error
    shared: EpochRecord = group.shared(record)
    trainer.best_score = max(trainer.best_score, shared.score)
    return shared


def _counted(batches: Iterator[Batch], steps: int, on_step: Callable[[int, int], None]) -> Iterator[Batch]:
    """Yield batches. The trainer takes the next one when the step on the last one is done."""
    for done, batch in enumerate(batches):
        if done:
            on_step(done, steps)
        yield batch
