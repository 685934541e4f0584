"""Masked weights stay at zero through momentum, Adam, averages, kill and resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.errors import CheckpointError, MaskError
from autoprune.execution import Setting
from autoprune.masks import GradualMasks, MaskHook, MaskRule, Masks, cubic_sparsity, make_masks
from autoprune.training import EpochRecord, Moment, Schedule, StepHook, Task, fit, weights_hash
from tests.masks.nets import DATA, net, traced


class Watch(StepHook):
    """Counts masked weights, and their averages, that are not zero after a step."""

    def __init__(self, hook: MaskHook) -> None:
        self.hook, self.wrong, self.sparsities = hook, 0, list[float]()

    def after_step(self, model: nn.Module, moment: Moment) -> None:
        self.wrong += sum(
            int(parameter[zero].count_nonzero()) for parameter, zero in self.hook.masks.placed(model)
        )
        self.sparsities.append(self.hook.masks.sparsity)

    def after_average(self, average: nn.Module, moment: Moment) -> None:
        self.after_step(average, moment)


SCHEDULES = [
    Schedule(epochs=3, momentum=0.9, ema=0.8),
    Schedule(epochs=3, optimizer="adamw", learning_rate=0.01, ema=0.8),
]


def hooks() -> dict[str, MaskHook]:
    return {
        "fixed": MaskHook(make_masks(net(), 0.5)),
        "gradual": GradualMasks(MaskRule("kernel"), 0.75, updates=4, end_share=0.8),
    }


@pytest.mark.parametrize("kind", ["fixed", "gradual"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda schedule: str(schedule.optimizer))
@pytest.mark.parametrize("setting", [Setting(), Setting(dtype="bfloat16", channels_last=True)], ids=str)
def test_masked_weights_are_zero_after_each_step(kind: str, schedule: Schedule, setting: Setting) -> None:
    model, hook = net(), hooks()[kind]
    watch = Watch(hook)
    fit(model, DATA, schedule, setting, Task(), seed=0, hooks=(hook, watch))
    assert watch.wrong == 0
    assert len(watch.sparsities) == 2 * 3 * len(DATA.train)
    assert hook.masks.sparsity == pytest.approx({"fixed": 0.5, "gradual": 0.75}[kind], abs=0.01)
    zeros = sum(int((parameter == 0).sum()) for parameter, _ in hook.masks.placed(model))
    assert zeros == sum(int((~mask).sum()) for mask in hook.masks.values())


@pytest.mark.parametrize("kind", ["fixed", "gradual"])
def test_an_interrupted_training_continues_bit_for_bit(tmp_path: Path, kind: str) -> None:
    def run(**arguments: Any) -> tuple[str, Masks]:
        model, hook = net(), hooks()[kind]
        fit(model, DATA, SCHEDULES[0], Setting(), Task(), seed=0, hooks=(hook,), **arguments)
        return weights_hash(model), hook.masks

    def stop(record: EpochRecord) -> None:
        if record.epoch == 2:
            raise KeyboardInterrupt

    whole = run()
    with pytest.raises(KeyboardInterrupt):
        run(checkpoint=tmp_path / "state.pt", on_epoch=stop)
    assert run(checkpoint=tmp_path / "state.pt") == whole
    assert run(checkpoint=tmp_path / "state.pt") == whole


def test_other_masks_do_not_go_on_with_a_training(tmp_path: Path) -> None:
    for sparsity in (0.5, 0.6):
        hook = MaskHook(make_masks(net(), sparsity))
        arguments: dict[str, Any] = {"seed": 0, "hooks": (hook,), "checkpoint": tmp_path / "state.pt"}
        if sparsity == 0.5:
            fit(net(), DATA, Schedule(steps=1), Setting(), Task(), **arguments)
        else:
            with pytest.raises(CheckpointError, match="hook 1 was masks"):
                fit(net(), DATA, Schedule(steps=1), Setting(), Task(), **arguments)


def test_the_sparsity_follows_the_cubic_schedule() -> None:
    hook = GradualMasks(MaskRule(), 0.8, initial=0.2, begin_share=0.2, end_share=0.6, updates=3)
    model, found = net(), []
    hook.begin(model)
    for step in range(11):
        hook.after_step(model, Moment(step, 11, 0.1))
        found.append(hook.masks.sparsity)
    middle = 0.8 - 0.6 * 0.5**3
    expected = [0.0] * 2 + [0.2] * 2 + [middle] * 2 + [0.8] * 5
    assert found == pytest.approx(expected, abs=0.01)
    assert cubic_sparsity(0.2, 0.8, 0.5) == pytest.approx(middle)


def test_growing_masks_may_start_from_masks() -> None:
    start = make_masks(net(), 0.3)
    hook = GradualMasks(MaskRule(), 0.6, initial=0.3, begin_share=0.5, start=start)
    assert hook.identity != GradualMasks(MaskRule(), 0.6, initial=0.3, begin_share=0.5).identity
    model = net()
    hook.begin(model)
    assert weights_hash(model) == weights_hash(start.applied(net()))
    fit(model, DATA, Schedule(epochs=2), Setting(), Task(), seed=0, hooks=(hook,))
    assert hook.masks.sparsity == pytest.approx(0.6, abs=0.01)
    assert all(not bool((hook.masks[name] & ~mask).any()) for name, mask in start.items())


def test_growing_filters_take_their_whole_channels() -> None:
    prunable = traced()
    hook = GradualMasks(MaskRule("filter", skip=("head",)), 0.5, updates=3, prunable=prunable)
    model = net()
    fit(model, DATA, Schedule(epochs=2, ema=0.5), Setting(), Task(), seed=0, hooks=(hook,))
    gone = ~hook.masks["inner.weight"].flatten(1).any(1)
    assert int(gone.sum()) == 4
    assert not bool(model.bn2.bias[gone].any())
    assert not bool(model.outer.weight[:, gone].any())
    assert bool(model.bn2.bias[~gone].all())


def test_masks_of_another_model_are_one_line() -> None:
    hook = MaskHook(Masks({"stem.weight": torch.ones(8, 1, 5, 5, dtype=torch.bool)}))
    with pytest.raises(
        MaskError, match=r"stem.weight: the masks are of another model: got a mask \[8, 1, 5, 5\]"
    ):
        fit(net(), DATA, Schedule(steps=1), Setting(), Task(), seed=0, hooks=(hook,))


@pytest.mark.parametrize(
    ("rule", "arguments", "message"),
    [
        (MaskRule("2:4"), {"sparsity": 0.5}, '"2:4" has one sparsity only'),
        (MaskRule(), {"sparsity": 0.5, "initial": 0.6}, "a sparsity from 0.6 to 0.5. Expected"),
        (MaskRule(), {"sparsity": 0.5, "updates": 1}, "got 1 updates"),
        (MaskRule(), {"sparsity": 0.5, "begin_share": 0.8}, "from 0.8 to 0.75 of the training"),
    ],
)
def test_bad_schedules_are_one_line(rule: MaskRule, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(MaskError, match=message):
        GradualMasks(rule, **arguments)
