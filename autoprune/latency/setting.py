"""The setting under which a latency is measured: probe, device, batch, threads, number format, layout.

Example:
    setting = LatencySetting("onnx", batch=32, threads=2)
    dataclasses.asdict(setting)          # JSON values

`probes.check_probe` refuses a setting that its probe does not support.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch

from autoprune.errors import ConfigError, unknown
from autoprune.support.dtypes import DTYPES

ONNX_PLACEHOLDER = "{onnx}"
"""Placeholder in a command for the path of the ONNX file."""


@dataclass(frozen=True)
class LatencySetting:
    """How a model is run when it is timed.

    Attributes:
        probe: a name in PROBES, or the user's own "package.module:function".
        device: torch's name of the device: "cpu", "cuda", "cuda:1".
        batch: samples of one forward pass.
        threads: CPU threads of a forward pass.
        dtype: a name in DTYPES.
        channels_last: whether images [n, C, H, W] and 4-d weights are in the memory layout NHWC.
        command: command line for the probe "command". The path of the ONNX file replaces "{onnx}", and the
            last line that the command prints is the milliseconds of a forward pass.
        command_seconds: a run of the command that takes longer is killed. Measurements do not depend on it.

    Raises:
        ConfigError: no probe can use a value, or two values contradict each other.
    """

    probe: str = "eager"
    device: str = "cpu"
    batch: int = 1
    threads: int = 1
    dtype: str = "float32"
    channels_last: bool = False
    command: str | None = None
    command_seconds: float = 600.0

    def __post_init__(self) -> None:
        for name in ("batch", "threads"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"latency.{name}: got {value!r}, expected an integer >= 1.")
        if self.dtype not in DTYPES:
            raise ConfigError(unknown("latency.dtype", self.dtype, DTYPES))
        if not re.fullmatch(r"cpu|cuda(:\d+)?", self.device):
            raise ConfigError(
                f'latency.device: "{self.device}" is no device. Use "cpu", "cuda" or a number as in "cuda:1".'
            )
        if self.command is not None and ONNX_PLACEHOLDER not in self.command:
            raise ConfigError(
                f'latency.command: "{self.command}" does not contain {ONNX_PLACEHOLDER}. Write it in place '
                "of the path of the ONNX file."
            )

    def __str__(self) -> str:
        """Return the setting in words: "onnx, cpu, batch 1, 1 thread, float32" or "command, batch 1"."""
        if self.command is not None:  # threads and number format are the command's own choice
            return f"{self.probe}, batch {self.batch}"
        threads = f"{self.threads} thread{'s' if self.threads > 1 else ''}"
        words = [self.probe, self.device, f"batch {self.batch}", threads, self.dtype]
        return ", ".join([*words, "channels last"] if self.channels_last else words)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The number format as a `torch.dtype`."""
        return DTYPES[self.dtype]

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")
