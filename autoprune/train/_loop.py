"""The full training: after each epoch an evaluation and a saved state; the last epoch is what counts.

Before: a model, data, a Schedule, a Setting. After: `pipeline` evaluates and saves the trained model.

    result = fit(model, data, Schedule(epochs=30), setting, Task(), seed=0, checkpoint=Path("state.pt"))
    result.score        # metric on the validation part after the last epoch
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from autoprune.data import (
    VisionData,
    from_storable,
    model_seed,
    random_states,
    restore_random_states,
    seeded,
    to_storable,
)
from autoprune.errors import TrialError
from autoprune.execution import Setting
from autoprune.support.userfunction import reference
from autoprune.train._evaluation import evaluate
from autoprune.train._schedule import Schedule
from autoprune.train._trainer import Subnets, Trainer
from autoprune.train._training_state import load_state, save_state, weights_hash
from autoprune.train.task import Task


@dataclass(frozen=True)
class EpochRecord:
    """One epoch as it went: mean training loss, validation metric, wall seconds with evaluation."""

    epoch: int
    steps: int
    loss: float
    score: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class FitResult:
    """A training that ended: the validation metric after its last epoch, and every epoch's record."""

    score: float
    records: tuple[EpochRecord, ...]

    @property
    def seconds(self) -> float:
        """Wall seconds over all epochs, evaluation included."""
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
    on_epoch: Callable[[EpochRecord], None] | None = None,
    checkpoint: Path | None = None,
) -> FitResult:
    """Train `model` in place on data.train, evaluating on data.val after every epoch.

    Where `checkpoint` exists already, the training goes on from there, provided that it began with the same
    weights, teacher, sub-nets, data, batches, loss, schedule and seed; on CPU the result is bit for bit that
    of a training that was never stopped. Global random states are put aside and given back.

    Args:
        model: trained in place; with a weight average, it holds the average at the end.
        data: its test part is not touched.
        schedule: length, learning rate, optimiser and the rest.
        setting: how forward and backward passes run.
        task: loss and metric.
        seed: of the batches and of everything random in the model.
        teacher: followed with the schedule's distill_weight; put into eval mode.
        subnets: cut from the model, and trained along with it.
        on_epoch: called with every epoch's record as it ends (not for epochs that a checkpoint had).
        checkpoint: file for the training's state, written after every epoch.

    Raises:
        TrialError: the loss is not finite.
        CheckpointError: the checkpoint is corrupt, of another training, or cannot be written.
    """
    per_epoch = len(data.train)
    total = schedule.total_steps(per_epoch)
    if teacher is not None:
        setting.place(teacher).eval()
    trainer = Trainer(model, schedule, setting, task, total_steps=total, teacher=teacher, subnets=subnets)
    identity = {
        **_identity(schedule, model, teacher, subnets),
        **_identity_of_steps(data, setting, task, seed),
    }
    with seeded(model_seed(seed)):
        records = _restore(trainer, checkpoint, identity)
        while trainer.steps < total:
            record = _run_epoch(
                trainer, data, setting, task, seed=seed, steps=min(per_epoch, total - trainer.steps)
            )
            records.append(record)
            if checkpoint is not None:
                _save(trainer, records, checkpoint, identity)
            if on_epoch is not None:
                on_epoch(record)
    model.zero_grad(set_to_none=True)
    if trainer.result is not model:
        model.load_state_dict(trainer.result.state_dict())
    return FitResult(records[-1].score, tuple(records))


def _identity(
    schedule: Schedule, model: nn.Module, teacher: nn.Module | None, subnets: Subnets | None
) -> dict[str, str]:
    """Name what a training begins with: one that was stopped goes on under the same only."""
    return {
        **{name: str(value) for name, value in dataclasses.asdict(schedule).items()},
        "model": weights_hash(model),
        "teacher": weights_hash(teacher) if teacher is not None else "none",
        **({"subnets": subnets.identity} if subnets is not None else {}),
    }


def _identity_of_steps(data: VisionData, setting: Setting, task: Task, seed: int) -> dict[str, str]:
    """Name what each step depends on, likewise."""
    return {
        "dtype": setting.dtype,
        "seed": str(seed),
        "data": data.fingerprint,
        "batches": f"{len(data.train)} an epoch, augmented by {data.augmentation}",
        "loss": reference(task.loss),
    }


def _restore(trainer: Trainer, checkpoint: Path | None, identity: Mapping[str, str]) -> list[EpochRecord]:
    """Put trainer and random states where a stopped training left them; returns the epochs that it had."""
    state = load_state(checkpoint, identity) if checkpoint else None
    if state is None:
        return []
    trainer.restore(state["trainer"])
    restore_random_states(from_storable(state["random"]))
    return [EpochRecord(**record) for record in state["records"]]


def _save(
    trainer: Trainer, records: Sequence[EpochRecord], checkpoint: Path, identity: Mapping[str, str]
) -> None:
    kept = [dataclasses.asdict(each) for each in records]
    state = {"trainer": trainer.state(), "records": kept, "random": to_storable(random_states())}
    save_state(checkpoint, identity, state)


def _run_epoch(
    trainer: Trainer, data: VisionData, setting: Setting, task: Task, *, seed: int, steps: int
) -> EpochRecord:
    started = time.perf_counter()
    learning_rate = trainer.learning_rate
    epoch = trainer.steps // len(data.train)
    try:
        loss = trainer.run(data.train.batches(seed, epoch), steps)
        score = evaluate(trainer.result, data.val, task, setting)
    except TrialError as error:
        raise TrialError(f"epoch {epoch + 1}: {error}") from error
    return EpochRecord(epoch + 1, trainer.steps, loss, score, learning_rate, time.perf_counter() - started)
