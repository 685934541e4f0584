"""Hooks of the trainer: their place in a step, and their part in a training's state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.data import load, seeded
from autoprune.errors import CheckpointError
from autoprune.execution import Setting
from autoprune.training import EpochRecord, Moment, Schedule, StepHook, Task, fit

DATA = load("digits", batch_size=128)


class Recorder(StepHook):
    """Scales gradients and weights, and notes the order of the calls."""

    def __init__(self, identity: str = "recorder") -> None:
        self.identity = identity
        self.calls: list[str] = []
        self.steps = 0

    def begin(self, model: nn.Module) -> None:
        self.calls.append("begin")

    def after_backward(self, model: nn.Module, moment: Moment) -> None:
        self.calls.append(f"backward {moment.step}")
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.grad.mul_(0.5)

    @torch.no_grad()
    def after_step(self, model: nn.Module, moment: Moment) -> None:
        self.calls.append(f"step {moment.step}")
        self.steps += 1
        for parameter in model.parameters():
            parameter.mul_(1 - 0.01 * moment.learning_rate * self.steps)

    def after_average(self, average: nn.Module, moment: Moment) -> None:
        self.calls.append(f"average {moment.step}")

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]


def net() -> nn.Module:
    with seeded(0):
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 10))


def trained(hook: Recorder, checkpoint: Path | None = None, *, stop: bool = False) -> dict[str, torch.Tensor]:
    def on_epoch(record: EpochRecord) -> None:
        if stop:
            raise KeyboardInterrupt

    model = net()
    schedule = Schedule(epochs=2, ema=0.9)
    fit(
        model,
        DATA,
        schedule,
        Setting(),
        Task(),
        seed=0,
        hooks=(hook,),
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    return model.state_dict()


def test_a_step_calls_a_hook_after_backward_after_the_step_and_after_the_average() -> None:
    hook = Recorder()
    fit(net(), DATA, Schedule(steps=2, ema=0.9), Setting(), Task(), seed=0, hooks=(hook,))
    assert hook.calls == [
        "begin",
        *("backward 0", "step 0", "average 0"),
        *("backward 1", "step 1", "average 1"),
    ]


def test_halved_gradients_train_as_half_the_learning_rate_does() -> None:
    class Half(StepHook):
        def after_backward(self, model: nn.Module, moment: Moment) -> None:
            for parameter in model.parameters():
                assert parameter.grad is not None
                parameter.grad.mul_(0.5)

    states = []
    for rate, hooks in ((0.5, (Half(),)), (0.25, ())):
        model = net()
        schedule = Schedule(steps=3, learning_rate=rate, weight_decay=0.0, schedule="constant")
        fit(model, DATA, schedule, Setting(), Task(), seed=0, hooks=hooks)
        states.append(model.state_dict())
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())


def test_hooks_see_gradients_without_the_scale_of_float16() -> None:
    class Norm(StepHook):
        norms: tuple[float, ...] = ()

        def after_backward(self, model: nn.Module, moment: Moment) -> None:
            squares = [
                float(each.grad.square().sum()) for each in model.parameters() if each.grad is not None
            ]
            self.norms = (*self.norms, sum(squares) ** 0.5)

    found = []
    for dtype in ("float32", "float16"):
        hook = Norm()
        fit(net(), DATA, Schedule(steps=1), Setting(dtype=dtype), Task(), seed=0, hooks=(hook,))
        found.append(hook.norms)
    assert found[1] == pytest.approx(found[0], rel=0.02)


def test_a_resumed_training_has_the_state_of_its_hook(tmp_path: Path) -> None:
    whole = trained(Recorder())
    with pytest.raises(KeyboardInterrupt):
        trained(Recorder(), tmp_path / "state.pt", stop=True)
    resumed = trained(Recorder(), tmp_path / "state.pt")
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_another_hook_does_not_go_on_with_the_training(tmp_path: Path) -> None:
    trained(Recorder(), tmp_path / "state.pt")
    with pytest.raises(CheckpointError, match="hook 1 was recorder and is now other"):
        trained(Recorder("other"), tmp_path / "state.pt")
