"""The choice of a setting: by real steps of small models, and by a table of times on a clock of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.execution import Setting, faults_of
from autoprune.training import Task, cross_entropy, fastest_setting
from autoprune.training._fastest import LIMIT_S, Candidate, race
from autoprune.zoo import make_model

BATCH = (torch.rand(8, 1, 8, 8), torch.arange(8))


class NeverRuns(nn.Module):
    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(self.reason)


def test_every_sound_choice_is_timed_or_left_out_with_a_reason_and_the_fastest_wins() -> None:
    choice = fastest_setting(make_model("digits_resnet", 10, 1), BATCH, Task(), "cpu", repeats=3)
    formats = [f"{dtype} {layout}" for dtype in ("float32", "bfloat16") for layout in LAYOUTS]
    assert sorted({**choice.milliseconds, **choice.left_out}) == sorted(formats)
    assert not set(choice.milliseconds) & set(choice.left_out)
    assert choice.step_ms == min(choice.milliseconds.values()) > 0
    assert (choice.setting.device, choice.setting.threads) == ("cpu", torch.get_num_threads())


LAYOUTS = ("contiguous", "channels_last")


def test_one_that_is_named_is_timed_alone() -> None:
    named = Setting(dtype="bfloat16")
    choice = fastest_setting(make_model("digits_resnet", 10, 1), BATCH, Task(), "cpu", only=named)
    assert (choice.setting, list(choice.milliseconds)) == (named, [named.label])


def test_measuring_leaves_model_and_random_state() -> None:
    model = make_model("digits_resnet", 10, 1).eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    fastest_setting(model, BATCH, Task(), "cpu", repeats=1)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(state, torch.get_rng_state())
    assert not model.training


@pytest.mark.parametrize(
    ("raised", "said"), [("no kernel here\nat line 1", "no kernel here"), ("", "RuntimeError")]
)
def test_a_model_that_never_runs_is_named(raised: str, said: str) -> None:
    with pytest.raises(ConfigError, match=rf"no setting runs a training step .* here \(.*{said}.*\)"):
        fastest_setting(NeverRuns(raised), BATCH, Task(), "cpu")


class Exits(torch.autograd.Function):
    """Ends the process in its backward pass."""

    @staticmethod
    def forward(ctx: Any, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        sys.exit(3)


class ExitsBackwards(nn.Linear):
    """A model that ends the process once it is trained."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = Exits.apply(super().forward(inputs.flatten(1)))
        return logits


class ExitsAsACopy(nn.Linear):
    """A model that ends the process once it is copied."""

    def __deepcopy__(self, memo: dict[int, object]) -> ExitsAsACopy:
        sys.exit(3)


@pytest.mark.parametrize(
    ("kind", "said"), [(ExitsBackwards, "its step failed"), (ExitsAsACopy, "no copy of the model")]
)
def test_a_model_that_ends_the_process_is_named(kind: type[nn.Linear], said: str) -> None:
    with pytest.raises(ConfigError, match=rf"no setting runs .* here \({said}: SystemExit: 3\)"):
        fastest_setting(kind(64, 10), BATCH, Task(), "cpu")


@pytest.mark.gpu
def test_cuda_measures_float16_too() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    choice = fastest_setting(make_model("digits_resnet", 10, 1), BATCH, Task(), "auto")
    assert choice.setting.device == "cuda"
    assert "float16 channels_last" in {**choice.milliseconds, **choice.left_out}


def knows_float32_alone(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    outputs.detach().numpy()
    return cross_entropy(outputs, targets)


def test_a_number_format_that_the_loss_does_not_know_is_left_out() -> None:
    task = Task(loss=knows_float32_alone)
    choice = fastest_setting(make_model("digits_resnet", 10, 1), BATCH, task, "cpu", repeats=1)
    assert choice.setting.dtype == "float32"
    assert {"bfloat16 contiguous", "bfloat16 channels_last"} <= set(choice.left_out)


class FailsLater(nn.Module):
    """Runs twice in each copy and then, in those that lie channels_last, no more."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 4, 3), nn.Conv2d(4, 10, 6)
        self.calls = 0

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        last = self.conv.weight.is_contiguous(memory_format=torch.channels_last)
        if last and self.calls > 2:
            raise RuntimeError("out of memory")
        logits: torch.Tensor = self.conv(self.stem(inputs)).flatten(1)
        return logits


def test_what_fails_while_it_is_timed_is_left_out() -> None:
    choice = fastest_setting(FailsLater(), BATCH, Task(), "cpu", repeats=2)
    assert all(label.endswith(" contiguous") for label in choice.milliseconds)
    assert not choice.setting.channels_last


class Clock:
    """Time that passes by the table's seconds alone; notes which candidate took a step."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps: list[str] = []

    def __call__(self) -> float:
        return self.now

    def candidate(self, name: str, first_s: float, step_s: float) -> Candidate:
        return Candidate(name.split()[0], self._taking(name, first_s), self._taking(name, step_s))

    def _taking(self, name: str, seconds: float) -> Callable[[], None]:
        def step() -> None:
            self.now += seconds
            self.steps.append(name)

        return step


def raced(*table: tuple[str, float, float], repeats: int = 5) -> tuple[Clock, Sequence[Candidate]]:
    clock = Clock()
    candidates = [clock.candidate(*row) for row in table]
    race(candidates, repeats=repeats, clock=clock)
    return clock, candidates


def test_an_emulated_number_format_costs_one_partial_step() -> None:
    """As bfloat16 on a CPU without it: 1.5 s against 19 s a step, in both layouts."""
    clock, candidates = raced(
        ("float32 a", 0.3, 1.5), ("float32 b", 0.2, 1.2), ("bfloat16 a", 2.4, 19.0), ("bfloat16 b", 2.4, 19.0)
    )
    assert clock.steps.count("bfloat16 a") == 1
    assert clock.steps.count("bfloat16 b") == 0
    assert candidates[2].dropped.startswith("a step takes 2400 ms")
    assert candidates[3].dropped == "bfloat16 is slow on this machine"
    assert [each.median_s for each in candidates[:2]] == pytest.approx([1.5, 1.2])
    assert clock.now < LIMIT_S + 2 * 2.7


def test_the_cold_start_of_the_first_one_hides_no_hopeless_one() -> None:
    """As if channels-last is left out: float32 has one layout, whose first step starts the threads."""
    clock = Clock()
    times = iter([1.2, 0.2, 1.5])

    def first() -> None:
        clock.now += next(times)

    cold = Candidate("float32", first, clock.candidate("float32 a", 0, 1.5).step)
    emulated = Candidate("bfloat16", first, clock.candidate("bfloat16 a", 0, 19.0).step)
    race([cold, emulated], repeats=3, clock=clock)
    assert emulated.dropped.startswith("a step takes 1500 ms")
    assert "bfloat16 a" not in clock.steps


def test_one_that_takes_twice_as_long_is_dropped_after_its_first_whole_step() -> None:
    clock, candidates = raced(("a", 0.05, 0.25), ("b", 0.05, 0.1), ("c", 0.05, 0.19))
    assert clock.steps.count("a") == 3
    assert "250 ms" in candidates[0].dropped
    assert (clock.steps.count("b"), clock.steps.count("c")) == (8, 8)


def test_a_slow_one_is_chosen_if_the_fast_ones_fail() -> None:
    clock = Clock()
    fast, slow = clock.candidate("float32 a", 0.1, 0.1), clock.candidate("bfloat16 a", 9.0, 70.0)

    def step() -> None:
        raise RuntimeError("out of memory")

    fast.step = step
    race([fast, slow], repeats=3, clock=clock)
    assert fast.dropped.endswith("RuntimeError: out of memory")
    assert (slow.dropped, slow.seconds) == ("", [70.0])


def test_short_steps_are_never_hopeless() -> None:
    _, candidates = raced(("float32 a", 0.001, 0.001), ("float32 b", 0.02, 0.01))
    assert [each.dropped for each in candidates] == ["", ""]
    assert [len(each.seconds) for each in candidates] == [6, 6]


def test_slow_steps_are_repeated_less() -> None:
    clock, candidates = raced(("a", 1.0, 8.0), ("b", 1.0, 7.0))
    assert clock.steps == ["a", "a", "b", "b", "a", "b"]
    assert [each.median_s for each in candidates] == [8.0, 7.0]


def test_the_warm_up_does_not_count_if_there_was_time_for_more() -> None:
    times = iter([9.0, 9.0, 1.0, 0.2])
    clock = Clock()

    def step() -> None:
        clock.now += next(times)

    alone = Candidate("float32", step, step)
    race([alone], repeats=1, clock=clock)
    assert alone.seconds == [1.0]  # the partial steps took all the time that there was
    assert alone.median_s == 1.0


def test_settings_that_go_wrong_here_are_not_timed() -> None:
    choice = fastest_setting(make_model("digits_resnet", 10, 1), BATCH, Task(), "cpu", repeats=1)
    settings = [Setting("cpu", "float32", last, torch.get_num_threads()) for last in (False, True)]
    for setting in faults_of(settings):
        assert choice.left_out[setting.label].startswith("goes wrong on this machine: ")
