"""Settings: where and how a model is run."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autoprune.errors import ConfigError
from autoprune.execution import Setting, resolve_device


def test_place_and_arrange_set_the_layout_both_ways() -> None:
    model = nn.Conv2d(8, 8, 3)
    last, plain = Setting(channels_last=True), Setting()
    assert last.place(model).weight.is_contiguous(memory_format=torch.channels_last)
    assert not model.weight.is_contiguous()
    assert plain.place(model).weight.is_contiguous()
    images = torch.rand(2, 3, 4, 4)
    assert last.arrange(images).stride() == (48, 1, 12, 3)
    assert torch.equal(last.arrange(images), images)


@pytest.mark.parametrize("channels_last", [False, True])
def test_a_tensor_in_both_layouts_runs_in_the_requested_one(channels_last: bool) -> None:
    """torch goes by strides: with those of the other layout it would take the other layout's kernels."""
    setting = Setting(channels_last=channels_last)
    other = torch.contiguous_format if channels_last else torch.channels_last
    narrow = nn.Conv2d(4, 6, 1)
    single = nn.Conv2d(1, 6, 3)
    for module, shape in ((narrow, (6, 4, 1, 1)), (single, (6, 1, 3, 3))):
        module.weight.data = module.weight.data.clone().as_strided(shape, strides_in(shape, other))
        before = module.weight.detach().clone()
        setting.place(module)
        assert module.weight.stride() == strides_in(shape, setting.memory_format)
        assert torch.equal(module.weight, before)
    for shape in ((5, 1, 8, 8), (5, 4, 1, 1), (5, 3, 8, 8)):
        images = torch.rand(shape).contiguous(memory_format=other)
        images = images.as_strided(shape, strides_in(shape, other))
        arranged = setting.arrange(images)
        assert arranged.stride() == strides_in(shape, setting.memory_format)
        assert torch.equal(arranged, images)
        found = nn.Conv2d(shape[1], 2, 1)(arranged)
        assert found.is_contiguous(memory_format=setting.memory_format)


def strides_in(shape: tuple[int, ...], memory_format: torch.memory_format) -> tuple[int, ...]:
    """Return the strides of a tensor that torch makes of a shape without a dimension of size 1, by shape."""
    _, channels, height, width = shape
    if memory_format is torch.channels_last:
        return channels * height * width, 1, width * channels, channels
    return channels * height * width, height * width, width, 1


def test_what_a_study_keeps_of_a_setting_is_the_same_on_machines_that_need_a_detour() -> None:
    setting = Setting("cpu", "bfloat16", True, 3)
    fitted = Setting("cpu", "bfloat16", True, 3, detour=True)
    assert fitted == setting
    assert Setting(**fitted.facts) == setting
    assert not Setting(**fitted.facts).detour


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
        with pytest.raises(ConfigError, match=r'got "cuda:0", but torch sees no CUDA device'):
            resolve_device("cuda:0")
    with pytest.raises(ConfigError, match=r'got "cuda:77", but torch sees (no|\d+) CUDA devices here'):
        resolve_device("cuda:77")
    with pytest.raises(ConfigError, match=r'search\.device: "meta" cannot be used here \(.*\)\. Use "auto"'):
        resolve_device("meta")
