"""Copy a model to the device of a setting, and make random inputs for it.

Example:
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
        ConfigError: torch does not see the setting's device.
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
    """Return inputs of the setting's batch size. Floating tensors are random, others are the example's.

    Args:
        example_inputs: a Tensor, a tuple of inputs or a dict of keyword inputs, with the batch on axis 0.
        setting: the batch size, device, number format and layout.
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
    """Raise an error if torch does not see the setting's device.

    Raises:
        ConfigError: torch sees no such CUDA device.
    """
    if not setting.on_cuda:
        return
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (torch.device(setting.device).index or 0) >= seen:
        raise ConfigError(
            f'latency.device: got "{setting.device}", but torch sees {seen} CUDA devices here. '
            'Use "cpu" or measure on a machine that has it.'
        )


def check_threads(setting: LatencySetting) -> None:
    """Raise an error if the setting has more threads than this process has cores.

    Such threads wait for each other while they spin, and a forward pass can take minutes.

    Raises:
        ConfigError: the setting has more threads than cores.
    """
    cores = usable_cores()
    if setting.threads > cores:
        raise ConfigError(
            f"latency.threads: got {setting.threads}, expected at most {cores}, the CPU cores that this "
            "process may use. Set fewer threads or measure on a machine that has them."
        )


def _layout(setting: LatencySetting) -> torch.memory_format:
    return torch.channels_last if setting.channels_last else torch.contiguous_format
