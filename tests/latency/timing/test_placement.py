from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError
from autoprune.latency import LatencySetting
from autoprune.latency.timing import check_device, check_threads, placed_copy, random_inputs
from autoprune.support.threads import usable_cores
from tests.latency.nets import TWO_INPUTS, TwoInputs, snapshot, unchanged_since


def test_a_copy_takes_number_format_and_layout_and_the_model_stays() -> None:
    model = TwoInputs().train()
    before = snapshot(model)
    copied = placed_copy(model, LatencySetting(dtype="bfloat16", channels_last=True))
    assert isinstance(copied, TwoInputs)
    assert copied.conv.weight.dtype == torch.bfloat16
    assert copied.conv.weight.is_contiguous(memory_format=torch.channels_last)
    assert copied.norm.num_batches_tracked is not None
    assert copied.norm.num_batches_tracked.dtype == torch.int64
    assert not any(module.training for module in copied.modules())
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    assert unchanged_since(model, before)
    assert model.training
    assert model.conv.training
    assert model.conv.weight.requires_grad


class Remembers(nn.Module):
    """Keeps its last output, whose history `copy.deepcopy` refuses to copy."""

    def forward(self, images: Tensor) -> Tensor:
        self.last = images * 2
        return self.last


def test_shared_tensors_stay_shared_and_odd_models_can_be_copied() -> None:
    model = nn.Sequential(nn.Linear(4, 4), Remembers(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model(torch.zeros(1, 4))
    model.register_buffer("mask", None)
    copied = placed_copy(model, LatencySetting())
    assert copied.get_parameter("2.weight") is copied.get_parameter("0.weight")
    images = torch.randn(2, 4)
    assert torch.equal(copied(images), model(images))


def test_floating_inputs_are_random() -> None:
    setting = LatencySetting(batch=3, dtype="float16", channels_last=True)
    inputs = random_inputs(TWO_INPUTS, setting)
    assert isinstance(inputs, dict)
    images, kinds = inputs["images"], inputs["kinds"]
    assert isinstance(images, torch.Tensor)
    assert isinstance(kinds, torch.Tensor)
    assert (images.shape, images.dtype) == ((3, 3, 8, 8), torch.float16)
    assert images.std() > 0.5
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert kinds.tolist() == [3, 3, 3]


def test_example_inputs_of_any_batch_give_the_batch_of_the_setting() -> None:
    for example in (torch.zeros(1, 3, 8, 8), torch.zeros(16, 3, 8, 8), (torch.zeros(2, 3, 8, 8),)):
        (images,) = random_inputs(example, LatencySetting(batch=5))
        assert isinstance(images, torch.Tensor)
        assert images.shape == (5, 3, 8, 8)


def test_a_gpu_that_is_not_there() -> None:
    check_device(LatencySetting())
    with pytest.raises(ConfigError, match=r'latency\.device: got "cuda:77", but torch sees \d+ CUDA device'):
        check_device(LatencySetting(device="cuda:77"))


def test_no_more_threads_than_this_process_has_cores() -> None:
    cores = usable_cores()
    check_threads(LatencySetting(threads=cores))
    with pytest.raises(
        ConfigError, match=rf"latency\.threads: got {cores + 1}, expected at most {cores}, the CPU cores"
    ):
        check_threads(LatencySetting(threads=cores + 1))
