"""The setting of a run: device, number format, memory layout and CPU threads.

All forward and backward passes of a study use the same setting.

    model = setting.place(model)
    with setting.autocast():
        outputs = model(setting.arrange(inputs))
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from autoprune.errors import ConfigError, shortened, text_of
from autoprune.execution.detour import Detour
from autoprune.execution.layout import laid_out
from autoprune.support.dtypes import DTYPES
from autoprune.support.structures import mapped

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Setting:
    """Device, number format ("float32", "bfloat16", "float16"), layout and CPU threads of a run.

    With `detour`, strided 1x1 convolutions of few inputs take another path (see `Detour`). The detour depends
    on the machine, so it is not part of `facts`, which a study stores.
    """

    device: str = "cpu"
    dtype: str = "float32"
    channels_last: bool = False
    threads: int = 1
    detour: bool = field(default=False, compare=False)

    @property
    def label(self) -> str:
        """The number format and the layout, such as "bfloat16 channels_last"."""
        return f"{self.dtype} {'channels_last' if self.channels_last else 'contiguous'}"

    @property
    def facts(self) -> dict[str, Any]:
        """The setting in stored form. `Setting(**facts)` restores it."""
        return {
            "device": self.device,
            "dtype": self.dtype,
            "channels_last": self.channels_last,
            "threads": self.threads,
        }

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as a constant of torch."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients must be scaled, because float16 has too few exponent bits for small ones."""
        return self.dtype == "float16"

    def place(self, model: Model) -> Model:
        """Move a model to the device and layout, in place, and return it."""
        model.to(self.device)
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = laid_out(parameter.data, self.memory_format)
        return model

    def arrange(self, inputs: Any) -> Any:
        """Return the inputs of a batch on the device. Images [n, C, H, W] also get the layout."""

        def arranged(tensor: Tensor) -> Tensor:
            tensor = tensor.to(self.device, non_blocking=True)
            return laid_out(tensor, self.memory_format) if tensor.ndim == 4 else tensor

        return mapped(arranged, inputs)

    @contextlib.contextmanager
    def autocast(self) -> Iterator[None]:
        """Run forward passes and losses in the block in this number format. Backward passes follow it."""
        with contextlib.ExitStack() as contexts:
            if self.dtype != "float32":
                device_type = torch.device(self.device).type
                contexts.enter_context(torch.autocast(device_type, dtype=DTYPES[self.dtype]))
            if self.detour:
                contexts.enter_context(Detour())
            yield


def resolve_device(device: str = "auto") -> str:
    """Return the device that `device` names. "auto" means CUDA if it is available, else the CPU.

    Raises:
        ConfigError: if the device does not exist here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        requested = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f'search.device: "{device}" is no device. Use "auto", "cpu" or "cuda".') from error
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if requested.type == "cuda" and (requested.index or 0) >= seen:
        raise ConfigError(
            f'search.device: got "{device}", but torch sees {seen or "no"} CUDA devices here. '
            'Use "auto" or "cpu".'
        )
    try:
        torch.zeros(1, device=requested).cpu()
    except (RuntimeError, NotImplementedError, AssertionError) as error:
        raise ConfigError(
            f'search.device: "{device}" cannot be used here ({shortened(text_of(error), 200)}). '
            'Use "auto" or "cpu".'
        ) from error
    return device
