"""How a model is run here: device, number format, memory layout, threads; and which choice is the fastest.

Before: a model and a batch. After: `train` and `score` run every forward and backward under the Setting that
was measured once and stored in the study.

    setting, milliseconds = fastest_setting(model, (inputs, targets), Task(), device="auto")
    model = setting.place(model)
    with setting.autocast():
        outputs = model(setting.arrange(inputs))
"""

from __future__ import annotations

import contextlib
import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from autoprune.data.randomness import seeded
from autoprune.dtypes import DTYPES
from autoprune.errors import ConfigError, reason_of
from autoprune.task import Task, main_output

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Setting:
    """Device, number format ("float32", "bfloat16", "float16"), layout and CPU threads of a run."""

    device: str = "cpu"
    dtype: str = "float32"
    channels_last: bool = False
    threads: int = 1

    @property
    def label(self) -> str:
        """Name number format and layout, e.g. "bfloat16 channels_last"."""
        return f"{self.dtype} {'channels_last' if self.channels_last else 'contiguous'}"

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as torch's constant."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    @property
    def scales_gradients(self) -> bool:
        """Whether gradients would underflow without scaling: float16 has too few exponent bits."""
        return self.dtype == "float16"

    def place(self, model: Model) -> Model:
        """Move a model to the device and layout, in place, and return it."""
        model.to(self.device)
        for parameter in model.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=self.memory_format)
        return model

    def arrange(self, inputs: Tensor) -> Tensor:
        """Return a batch on the device, images [n, C, H, W] in the layout."""
        inputs = inputs.to(self.device, non_blocking=True)
        return inputs.contiguous(memory_format=self.memory_format) if inputs.ndim == 4 else inputs

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Return the context in which forward passes and losses run."""
        if self.dtype == "float32":
            return contextlib.nullcontext()
        return torch.autocast(torch.device(self.device).type, dtype=DTYPES[self.dtype])


def resolve_device(device: str = "auto") -> str:
    """Return the device that `device` names; "auto" takes CUDA where there is one.

    Raises:
        ConfigError: no such device here.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f'search.device: "{device}" is no device; use "auto", "cpu" or "cuda".') from error
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if asked.type == "cuda" and (asked.index or 0) >= seen:
        raise ConfigError(
            f'search.device: "{device}" asked, but torch sees {seen or "no"} CUDA devices here; '
            'use "auto" or "cpu".'
        )
    return device


def fastest_setting(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    task: Task,
    device: str = "auto",
    *,
    repeats: int = 5,
) -> tuple[Setting, dict[str, float]]:
    """Time one training step in every number format and layout, in turns, and choose by the median.

    The model is not changed, nor are the global random states. A choice that fails here, or whose loss is
    not finite, is left out.

    Args:
        model: as it will be trained; copies of it are timed.
        batch: (inputs [n, C, H, W], targets [n]) of the size to train with.
        task: for its loss.
        device: "auto", or torch's name of a device.
        repeats: timed steps a choice, after two untimed ones.

    Returns:
        The fastest setting, and {label: milliseconds a step} of all that ran.

    Raises:
        ConfigError: no such device, or no choice ran.
    """
    device = resolve_device(device)
    formats = ["float32", "bfloat16", "float16"] if device.startswith("cuda") else ["float32", "bfloat16"]
    threads = torch.get_num_threads()
    settings = [Setting(device, dtype, last, threads) for dtype in formats for last in (False, True)]
    steps: dict[Setting, Callable[[], None]] = {}
    reasons: dict[Setting, str] = {}
    times: dict[Setting, list[float]] = {setting: [] for setting in settings}
    with seeded(0):
        for setting in settings:
            try:
                steps[setting] = _prepare_step(model, batch, task, setting)
            except Exception as error:  # also of the user's loss, which may know float32 alone
                reasons[setting] = reason_of(error)
        for setting in settings * repeats:
            if setting in steps:
                try:
                    times[setting].append(_milliseconds(steps[setting]))
                except Exception as error:  # memory may do for one copy, and not for all with gradients
                    reasons[setting] = reason_of(error)
                    del steps[setting]
    medians = {setting: statistics.median(times[setting]) for setting in steps}
    if not medians:
        raise ConfigError(
            f"search.device: {device}: not one training step of the model runs here ({reasons[settings[0]]})."
        )
    best = min(medians, key=lambda setting: medians[setting])
    return best, {setting.label: milliseconds for setting, milliseconds in medians.items()}


def _milliseconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    return 1000 * (time.perf_counter() - started)


def _prepare_step(
    model: nn.Module, batch: tuple[Tensor, Tensor], task: Task, setting: Setting
) -> Callable[[], None]:
    """Return a function that does one training step on a copy of the model; run it twice to warm up."""
    trained = setting.place(copy.deepcopy(model)).train()
    inputs, targets = batch[0].to(setting.device), batch[1].to(setting.device)

    def step() -> None:
        with setting.autocast():
            loss = task.loss(main_output(trained(setting.arrange(inputs))), targets)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        if setting.device.startswith("cuda"):
            torch.cuda.synchronize(setting.device)
        trained.zero_grad(set_to_none=True)  # as all copies lie in memory at once
        if not bool(torch.isfinite(loss)):
            raise RuntimeError(f"the loss is not finite in {setting.label}")

    step()
    step()
    return step
