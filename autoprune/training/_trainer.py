"""The trainer: a model with its optimiser, weight average and gradient scaler, which step together.

Example:
    trainer = Trainer(model, Schedule(steps=100), setting, Task(), total_steps=100)
    mean_loss = trainer.run(endless(data.train, seed=0), steps=100)
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from autoprune.data import Batch
from autoprune.errors import ConfigError, DataError, TrialError
from autoprune.execution import ALONE, Group, Setting
from autoprune.support.structures import described, moved, samples_in
from autoprune.support.usercode import forward, guarded
from autoprune.training._distill import NO_OUTPUTS, Distillation
from autoprune.training._hooks import Moment, StepHook
from autoprune.training._schedule import Schedule, learning_rate_at, make_optimizer
from autoprune.training.task import Step, Task, main_output

CHECK_EVERY = 50
"""Steps between checks of the loss. Each check waits for the device."""


class Subnets(Protocol):
    """Smaller models that are cut from the trained model and train with it (see `SandwichSampler`)."""

    @property
    def identity(self) -> str:
        """A hash of everything that determines the sub-nets. It must be equal when a training resumes."""
        ...

    def at(self, model: nn.Module, step: int) -> Iterator[nn.Module]:
        """Yield the sub-nets of a step, in train mode. Steps are counted from 0.

        When the iterator continues, it adds the gradients of the last sub-net to those of `model`.
        """
        ...


class Trainer:
    """Trains `model` in place, with one step for each batch.

    Args:
        model: the model to train, which is moved to the setting's device.
        schedule: the schedule of the training.
        setting: how forward and backward passes run.
        task: the task with the loss.
        total_steps: length of the whole training, which the learning rate depends on.
        teacher: a model in eval mode to distill from, or None.
        subnets: sub-nets of `model`. Each distills from the model's outputs of the same batch, and its
            gradients add to the same step.
        hooks: hooks that act around each step, in this order.
        group: the processes that train together. Each trains on its share of every batch, and all models
            stay equal.
    """

    def __init__(
        self,
        model: nn.Module,
        schedule: Schedule,
        setting: Setting,
        task: Task,
        *,
        total_steps: int,
        teacher: nn.Module | None = None,
        subnets: Subnets | None = None,
        hooks: Sequence[StepHook] = (),
        group: Group = ALONE,
    ) -> None:
        self.model = setting.place(model)
        self._group = group
        self.steps = 0
        self.best_score = -math.inf  # of the epochs so far, which a learning rate may follow
        self._hooks = tuple(hooks)
        for hook in self._hooks:  # before the average, which starts as a copy of the model
            hook.begin(self.model)
        self._average: AveragedModel | None = None
        if schedule.ema:
            self._average = AveragedModel(model, use_buffers=True)
        self._schedule = schedule
        self._setting = setting
        self._task = task.smoothed(schedule.label_smoothing)
        self._total = total_steps
        self._follow = Distillation(task.loss, schedule.temperature, group)
        self._teacher = teacher if schedule.distill_weight else None
        self._subnets = subnets
        self._optimizer = make_optimizer(model, schedule)
        device_type = torch.device(setting.device).type
        self._scaler = torch.amp.GradScaler(device_type, enabled=setting.scales_gradients)

    def run(self, batches: Iterator[Batch], steps: int) -> float:
        """Train on the next `steps` batches and return their mean loss.

        Raises:
            TrialError: if the loss is not finite.
            ConfigError: if the model or the loss raises an error.
            DataError: if there are fewer batches.
        """
        self.model.train()
        # The sum stays on the device. Reading the loss in each step would make the CPU wait for it.
        total = torch.zeros((), device=self._setting.device)
        done = 0
        for done, batch in enumerate(itertools.islice(batches, steps), start=1):
            inputs, targets = batch
            where = (
                f"training: step {self.steps + 1} of {self._total} failed on inputs {described(inputs)} "
                f"and targets {described(targets)}"
            )
            with guarded(where, ConfigError, memory_passes=True):
                total += self._step(batch)
            if done % CHECK_EVERY == 0:
                self._check(total)
        self._check(total)
        if done < steps:
            raise DataError(
                f"data: got {done} batches of the training part, expected {steps}: its length is wrong, or "
                "it can be read only once. Give a DataLoader or a list."
            )
        return float(total) / steps

    @property
    def result(self) -> nn.Module:
        """The model to evaluate and keep: the weight average if the schedule has one, else the model."""
        return self._average.module if self._average else self.model

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step, or of the last step at the end."""
        step = min(self.steps, self._total - 1)
        return learning_rate_at(self._schedule, step, self._total, self.best_score)

    @property
    def optimizer_state(self) -> dict[str, Any]:
        """The state of the optimizer."""
        return self._optimizer.state_dict()

    def state(self) -> dict[str, Any]:
        """Return the state for `restore`: tensors, numbers, strings, lists and dicts."""
        return {
            "steps": self.steps,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict() if self._average else None,
            "hooks": [hook.state() for hook in self._hooks],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Restore a state that `state` returned."""
        self.steps = state["steps"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load_state_dict(state["average"])
        for hook, kept in zip(self._hooks, state.get("hooks", ()), strict=True):
            hook.restore(kept)

    def _step(self, batch: Batch) -> Tensor:
        moment = Moment(self.steps, self._total, self.learning_rate)
        for group in self._optimizer.param_groups:
            group["lr"] = moment.learning_rate
        inputs = self._setting.arrange(batch[0])
        targets = moved(batch[1], self._setting.device)
        self._optimizer.zero_grad(set_to_none=True)
        with self._setting.autocast(), self._group.global_statistics():
            step = self._task.step(self.model, (inputs, targets))
            loss = self._distilled(step, inputs, targets)
        loss = self._group.weighted(loss, samples_in(inputs))
        self._backward(loss)
        # The sub-nets come after the model's backward pass and before the step, so that gradients add up.
        if self._subnets is not None:
            self._distill_in_place(self._subnets, inputs, _known(step).detach(), targets)
        loss = self._group.averaged(self.model.parameters(), loss.detach())
        self._update(moment)
        self.steps += 1
        return loss

    def _update(self, moment: Moment) -> None:
        if self._hooks:
            # Hooks read gradients and add their own, so the factor of float16 training is divided out first.
            self._scaler.unscale_(self._optimizer)
        for hook in self._hooks:
            hook.after_backward(self.model, moment)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        for hook in self._hooks:
            hook.after_step(self.model, moment)
        if self._average:
            self._move_average(self._average)
            for hook in self._hooks:
                hook.after_average(self._average.module, moment)

    def _distill_in_place(self, subnets: Subnets, inputs: Any, followed: Tensor, targets: Any) -> None:
        for small in subnets.at(self.model, self.steps):
            with self._setting.autocast():
                loss = self._follow(main_output(forward(small, inputs)), followed, targets)
            self._backward(loss)

    def _backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _distilled(self, step: Step, inputs: Any, targets: Any) -> Tensor:
        """Return the loss of a step, mixed with that of following the teacher."""
        if self._teacher is None:
            return step.loss
        with torch.no_grad():
            followed = main_output(forward(self._teacher, inputs))
        weight = self._schedule.distill_weight
        return (1 - weight) * step.loss + weight * self._follow(_known(step), followed, targets)

    @torch.no_grad()
    def _move_average(self, average: AveragedModel) -> None:
        """Move the average by its decay, which is min(ema, (1 + t) / (10 + t)) after t updates.

        The low decay at the start gives the initial weights little influence. Integers, such as BatchNorm's
        counter of batches, are copied. `update_parameters` would wait for the device in each step.
        """
        decay = min(self._schedule.ema, (1 + self.steps) / (10 + self.steps)) if self.steps else 0.0
        for averages, current in _by_kind(average.module, self.model):
            if averages[0].is_floating_point():
                torch._foreach_lerp_(averages, current, 1 - decay)
            else:
                torch._foreach_copy_(averages, current)
        average.n_averaged += 1

    def _check(self, total_loss: Tensor) -> None:
        if not bool(torch.isfinite(total_loss)):
            raise TrialError(
                f"diverged: the loss is {float(total_loss)} by step {self.steps} of {self._total} "
                f"(learning rate {self._schedule.learning_rate:g}, {self._setting.label}). Lower the "
                "learning rate."
            )


def _known(step: Step) -> Tensor:
    if step.outputs is None:
        raise ConfigError(NO_OUTPUTS)
    return step.outputs


def _by_kind(*models: nn.Module) -> Iterator[list[list[Tensor]]]:
    """Yield equal parameters and buffers of the models, as one list a model for each number format."""
    tensors = [[*model.parameters(), *model.buffers()] for model in models]
    kinds = {tensor.dtype for tensor in tensors[0]}
    for kind in sorted(kinds, key=str):
        yield [[each.detach() for each in found if each.dtype is kind] for found in tensors]
