"""Own how a model and its inputs are made ready for a probe: a copy on the device, and random inputs.

Before: a model and example inputs of any batch; after: every probe runs what comes from here.

    model, inputs = placed_copy(model, setting), random_inputs(example_inputs, setting)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from autoprune.errors import ConfigError
from autoprune.graph.capture import ExampleInputs, normalise_inputs, repeat_batch
from autoprune.latency.setting import LatencySetting
from autoprune.rebuilding import clone_structure
from autoprune.support.modes import set_training
from autoprune.support.threads import usable_cores


def placed_copy(model: nn.Module, setting: LatencySetting) -> nn.Module:
    """Return a copy of the model in eval mode, on the setting's device, in its number format and layout.

    Raises:
        ConfigError: the setting's device is not there.
    """
    check_device(setting)
    memo: dict[int, object] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        dtype = setting.torch_dtype if tensor.is_floating_point() else tensor.dtype
        placed = tensor.detach().to(setting.device, dtype, copy=True)
        is_parameter = isinstance(tensor, nn.Parameter)
        memo[id(tensor)] = nn.Parameter(placed, requires_grad=False) if is_parameter else placed
    copied = clone_structure(model, memo).to(memory_format=_layout(setting))
    set_training(copied, False)
    return copied


def random_inputs(example_inputs: object, setting: LatencySetting) -> ExampleInputs:
    """Return inputs of the setting's batch: random where they are floating, else as the example has them.

    Args:
        example_inputs: a Tensor, a tuple of inputs or a dict of keyword inputs, the batch on axis 0.
        setting: gives batch, device, number format and layout.
    """
    generator = torch.Generator().manual_seed(0)

    def placed(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            tensor = torch.randn(tensor.shape, generator=generator).to(setting.torch_dtype)
        tensor = tensor.to(setting.device)
        return tensor.contiguous(memory_format=_layout(setting)) if tensor.ndim == 4 else tensor

    repeated = repeat_batch(normalise_inputs(example_inputs), setting.batch)
    inputs: ExampleInputs = pytree.tree_map_only(Tensor, placed, repeated)
    return inputs


def check_device(setting: LatencySetting) -> None:
    """Refuse a device that is not there.

    Raises:
        ConfigError: torch sees no such CUDA device.
    """
    if not setting.on_cuda:
        return
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (torch.device(setting.device).index or 0) >= seen:
        raise ConfigError(
            f'latency.device: "{setting.device}" asked, but torch sees {seen} CUDA devices here; '
            'use "cpu" or measure on the machine that has it.'
        )


def check_threads(setting: LatencySetting) -> None:
    """Refuse more threads than this process has cores: they would take turns, for minutes a forward pass.

    Raises:
        ConfigError: the setting asks for more.
    """
    cores = usable_cores()
    if setting.threads > cores:
        raise ConfigError(
            f"latency.threads: got {setting.threads}, expected at most {cores}, the CPU cores that this "
            "process may use; ask for fewer or measure on the machine that has them."
        )


def _layout(setting: LatencySetting) -> torch.memory_format:
    return torch.channels_last if setting.channels_last else torch.contiguous_format
