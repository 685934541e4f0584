"""Settings and the measurement that chooses one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.precision import Setting, fastest_setting, resolve_device
from autoprune.task import Task, cross_entropy
from autoprune.zoo import make_model

BATCH = (torch.rand(8, 1, 8, 8), torch.arange(8))


class NeverRuns(nn.Module):
    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(self.reason)


def test_measures_all_choices_and_takes_the_fastest() -> None:
    setting, milliseconds = fastest_setting(
        make_model("digits_resnet", 10, 1), BATCH, Task(), "cpu", repeats=3
    )
    assert set(milliseconds) == {
        f"{dtype} {layout}" for dtype in ("float32", "bfloat16") for layout in ("contiguous", "channels_last")
    }
    assert milliseconds[setting.label] == min(milliseconds.values())
    assert all(value > 0 for value in milliseconds.values())
    assert (setting.device, setting.threads) == ("cpu", torch.get_num_threads())


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
    with pytest.raises(ConfigError, match=rf"not one training step .* runs here \({said}\)"):
        fastest_setting(NeverRuns(raised), BATCH, Task(), "cpu")


def test_place_and_arrange_set_the_layout_both_ways() -> None:
    model = nn.Conv2d(8, 8, 3)
    last, plain = Setting(channels_last=True), Setting()
    assert last.place(model).weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.weight.is_contiguous()
    assert plain.place(model).weight.is_contiguous()
    images = torch.rand(2, 3, 4, 4)
    assert last.arrange(images).stride() == (48, 1, 12, 3)
    assert torch.equal(last.arrange(images), images)


def test_autocast_runs_in_the_number_format() -> None:
    linear = nn.Linear(4, 4)
    with Setting(dtype="bfloat16").autocast():
        assert linear(torch.rand(1, 4)).dtype is torch.bfloat16
    with Setting().autocast():
        assert linear(torch.rand(1, 4)).dtype is torch.float32


def test_devices() -> None:
    assert resolve_device("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    with pytest.raises(ConfigError, match=r'search\.device: "gpu" is no device'):
        resolve_device("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match=r'"cuda:0" asked, but torch sees no CUDA device'):
            resolve_device("cuda:0")
    with pytest.raises(ConfigError, match=r'"cuda:77" asked, but torch sees (no|\d+) CUDA devices here'):
        resolve_device("cuda:77")


@pytest.mark.gpu
def test_cuda_measures_float16_too() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    setting, milliseconds = fastest_setting(make_model("digits_resnet", 10, 1), BATCH, Task(), "auto")
    assert setting.device == "cuda"
    assert "float16 channels_last" in milliseconds


def knows_float32_alone(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    outputs.detach().numpy()
    return cross_entropy(outputs, targets)


def test_a_number_format_that_the_loss_does_not_know_is_left_out() -> None:
    task = Task(loss=knows_float32_alone)
    setting, milliseconds = fastest_setting(make_model("digits_resnet", 10, 1), BATCH, task, "cpu", repeats=1)
    assert setting.dtype == "float32"
    assert set(milliseconds) == {"float32 contiguous", "float32 channels_last"}


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
    _, milliseconds = fastest_setting(FailsLater(), BATCH, Task(), "cpu", repeats=2)
    assert set(milliseconds) == {"float32 contiguous", "bfloat16 contiguous"}
