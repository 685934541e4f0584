"""A training under way: model, optimiser, weight average and gradient scaler, which step together.

Before: `train.schedule` builds the optimiser, the loaders give batches. After: `train.loop` (full trainings)
and `score` (short finetunes) run it for as many steps as they want.

    trainer = Trainer(model, Schedule(steps=100), setting, Task(), total_steps=100)
    mean_loss = trainer.run(endless(data.train, seed=0), steps=100)
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from autoprune.data import Batch
from autoprune.errors import ConfigError, DataError, TrialError
from autoprune.execution import Setting
from autoprune.support.usercode import forward, guarded
from autoprune.train._distill import Distillation
from autoprune.train._schedule import Schedule, learning_rate_at, make_optimizer
from autoprune.train.task import Task, batch_loss, main_output

CHECK_EVERY = 50
"""Steps between looks at the loss; each look waits for the device."""

AUXILIARY_WEIGHT = 0.3
"""Share of an auxiliary head's loss: Szegedy et al., "Going Deeper with Convolutions", 2014, section 5."""


class Subnets(Protocol):
    """Smaller models cut from the trained one, which learn along with it; see `autoprune.supernet`."""

    @property
    def identity(self) -> str:
        """A fingerprint of which sub-nets each step has: a stopped training goes on under the same only."""
        ...

    def at(self, model: nn.Module, step: int) -> Iterator[nn.Module]:
        """Yield the sub-nets of a step, counted from 0, in train mode.

        Asking for the next one, or for the end, adds the gradients of the one before to those of `model`.
        """
        ...


class Trainer:
    """Trains `model` in place, a step a batch.

    Args:
        model: placed on the setting's device; changed.
        schedule: the training's numbers.
        setting: how forward and backward passes run.
        task: for its loss.
        total_steps: length of the whole training, for the learning rate.
        teacher: a model in eval mode to follow, or None.
        subnets: cut from `model`; each follows its outputs of the same batch, at the schedule's temperature.
            All gradients add up to one step.
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
    ) -> None:
        self.model = setting.place(model)
        self.steps = 0
        self._average: AveragedModel | None = None
        if schedule.ema:
            self._average = AveragedModel(model, multi_avg_fn=_moving_average(schedule.ema), use_buffers=True)
        self._schedule = schedule
        self._setting = setting
        self._loss = task.training_loss(schedule.label_smoothing)
        self._total = total_steps
        self._follow = Distillation(task.loss, schedule.temperature)
        self._teacher = teacher if schedule.distill_weight else None
        self._subnets = subnets
        self._optimizer = make_optimizer(model, schedule)
        device_type = torch.device(setting.device).type
        self._scaler = torch.amp.GradScaler(device_type, enabled=setting.scales_gradients)

    def run(self, batches: Iterator[Batch], steps: int) -> float:
        """Train for the next `steps` batches and return their mean loss.

        Raises:
            TrialError: the loss is not finite.
            ConfigError: a step fails, in the model or in the loss.
            DataError: there are fewer batches.
        """
        self.model.train()
        total = torch.zeros((), device=self._setting.device)
        done = 0
        for done, batch in enumerate(itertools.islice(batches, steps), start=1):
            inputs, targets = batch
            where = (
                f"training: step {self.steps + 1} of {self._total} failed on inputs {tuple(inputs.shape)} "
                f"and targets {tuple(targets.shape)}"
            )
            with guarded(where, ConfigError, memory_passes=True):
                total += self._step(batch)
            if done % CHECK_EVERY == 0:
                self._check(total)
        self._check(total)
        if done < steps:
            raise DataError(
                f"data: the training part gave {done} of {steps} batches; its length is wrong, or it can be "
                "read only once: give a DataLoader or a list."
            )
        return float(total) / steps

    @property
    def result(self) -> nn.Module:
        """The model that counts: with the average of the weights if the schedule keeps one."""
        return self._average.module if self._average else self.model

    @property
    def learning_rate(self) -> float:
        """The learning rate of the step to come, or of the last one at the end."""
        return learning_rate_at(self._schedule, min(self.steps, self._total - 1), self._total)

    def state(self) -> dict[str, Any]:
        """Return the state as tensors, numbers, strings, lists and dicts; `restore` takes it back."""
        return {
            "steps": self.steps,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "average": self._average.state_dict() if self._average else None,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go back to where `state` was taken."""
        self.steps = state["steps"]
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._scaler.load_state_dict(state["scaler"])
        if self._average:
            self._average.load_state_dict(state["average"])

    def _step(self, batch: Batch) -> Tensor:
        learning_rate = self.learning_rate
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        inputs = self._setting.arrange(batch[0])
        targets = batch[1].to(self._setting.device, non_blocking=True)
        self._optimizer.zero_grad(set_to_none=True)
        with self._setting.autocast():
            outputs = forward(self.model, inputs)
            loss = self._batch_loss(outputs, inputs, targets)
        self._backward(loss)
        if self._subnets is not None:
            self._distill_in_place(self._subnets, inputs, main_output(outputs).detach(), targets)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        if self._average:
            self._average.update_parameters(self.model)
        self.steps += 1
        return loss.detach()

    def _distill_in_place(self, subnets: Subnets, inputs: Tensor, followed: Tensor, targets: Tensor) -> None:
        for small in subnets.at(self.model, self.steps):
            with self._setting.autocast():
                loss = self._follow(main_output(small(inputs)), followed, targets)
            self._backward(loss)

    def _backward(self, loss: Tensor) -> None:
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    def _batch_loss(self, outputs: object, inputs: Tensor, targets: Tensor) -> Tensor:
        logits = main_output(outputs)
        loss = batch_loss(self._loss, logits, targets)
        if isinstance(outputs, tuple):
            for auxiliary in outputs[1:]:
                if isinstance(auxiliary, Tensor) and auxiliary.shape == logits.shape:
                    loss = loss + AUXILIARY_WEIGHT * batch_loss(self._loss, auxiliary, targets)
        if self._teacher is not None:
            with torch.no_grad():
                followed = main_output(self._teacher(inputs))
            weight = self._schedule.distill_weight
            loss = (1 - weight) * loss + weight * self._follow(logits, followed, targets)
        return loss

    def _check(self, total_loss: Tensor) -> None:
        if not bool(torch.isfinite(total_loss)):
            raise TrialError(
                f"diverged: the loss is {float(total_loss)} by step {self.steps} of {self._total} "
                f"(learning rate {self._schedule.learning_rate:g}, {self._setting.label}); lower the "
                "learning rate."
            )


def _moving_average(decay: float) -> Callable[[Any, Any, Tensor | int], None]:
    """Return how `AveragedModel` moves averages; after t updates by 1 - min(decay, (1 + t) / (10 + t)).

    So the first weights are soon forgotten. Integers, such as BatchNorm's count of batches, are copied.
    """

    @torch.no_grad()
    def move(averages: Any, current: Any, updates: Tensor | int) -> None:
        if averages[0].is_floating_point():
            kept = min(decay, (1 + int(updates)) / (10 + int(updates)))
            torch._foreach_lerp_(averages, current, 1 - kept)
        else:
            torch._foreach_copy_(averages, current)

    return move
