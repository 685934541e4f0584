"""Make models ready to be timed in a runtime. Each probe has a file of its own and a row in PROBES.

Example:
    with prepare(model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx")) as timed:
        timed()      # milliseconds of one forward pass

A new probe is a context manager (model, example inputs, setting) -> Timed, and a row in PROBES with its
traits.

A probe of your own needs no row. A config names a function that returns the milliseconds of one forward pass,
`probe = "mypkg.board:time_it"` in [latency]:

    import time

    def time_it(model, inputs):
        started = time.perf_counter()
        model(*inputs)
        return 1000 * (time.perf_counter() - started)

The function gets a copy of the model, and inputs of the setting's batch: a tuple, or a dict of keyword
inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from torch import nn

from autoprune.errors import ConfigError
from autoprune.latency.probes.command import user_command
from autoprune.latency.probes.compiled import compiled
from autoprune.latency.probes.eager import eager
from autoprune.latency.probes.function import user_function
from autoprune.latency.probes.onnx_runtime import onnx_runtime
from autoprune.latency.setting import ONNX_PLACEHOLDER, LatencySetting
from autoprune.latency.timing import Timed
from autoprune.support.rows import Row, quoted
from autoprune.support.userfunction import look_up

Probe: TypeAlias = Callable[[nn.Module, object, LatencySetting], AbstractContextManager[Timed]]
"""(model, example inputs of any batch, setting) -> context in which the model is ready to be timed."""


@dataclass(frozen=True)
class ProbeSpec(Row):
    """A row of PROBES.

    Attributes:
        probe: makes a model ready to be timed.
        runs_command: whether it runs `latency.command`.
        channels_last: whether models can have the memory layout NHWC in its runtime.
        dtypes: number formats that its runtime supports, or empty for all.
        package: package on whose version its latencies depend, in addition to torch.
        operators: row of PROFILERS that times a model's operators one by one, or "" if there is none.
        is_quick: whether models are ready fast enough to time blocks at every width.
    """

    probe: Probe
    runs_command: bool = False
    channels_last: bool = True
    dtypes: tuple[str, ...] = ()
    package: str = ""
    operators: str = ""
    is_quick: bool = False


PROBES: dict[str, ProbeSpec] = {
    "eager": ProbeSpec(eager, operators="torch", is_quick=True, about="PyTorch as it is"),
    "compile": ProbeSpec(compiled, about="torch.compile, for the exact shapes"),
    "onnx": ProbeSpec(
        onnx_runtime,
        channels_last=False,
        dtypes=("float32", "float16"),
        package="onnxruntime",
        operators="onnx",
        about="ONNX Runtime, on the CPU or on CUDA",
    ),
    "command": ProbeSpec(
        user_command,
        runs_command=True,
        channels_last=False,
        about="a command of yours that times an ONNX file, on a phone for example",
    ),
}


def find_probe(name: str) -> ProbeSpec:
    """Return the probe of that name, or a probe of the user's own "package.module:function".

    Raises:
        ConfigError: there is no such probe or function. The message suggests the nearest name.
    """
    found = look_up(name, PROBES, "latency.probe")
    return found if isinstance(found, ProbeSpec) else ProbeSpec(partial(user_function, found))


def check_probe(setting: LatencySetting) -> ProbeSpec:
    """Return the probe of a setting.

    Raises:
        ConfigError: there is no such probe, or it does not support the rest of the setting.
    """
    probe = find_probe(setting.probe)
    if probe.runs_command != (setting.command is not None):
        name = " or ".join(f'"{each}"' for each, spec in PROBES.items() if spec.runs_command)
        raise ConfigError(
            f'latency.command: got probe = "{setting.probe}" and command = {setting.command!r}, expected '
            f'both or neither, such as probe = {name}, command = "./on_phone.sh {ONNX_PLACEHOLDER}".'
        )
    if setting.channels_last and not probe.channels_last:
        raise ConfigError(
            "latency.channels_last: an ONNX file has no memory layout. Remove the key or use another "
            f'latency.probe than "{setting.probe}".'
        )
    if probe.dtypes and setting.dtype not in probe.dtypes:
        raise ConfigError(
            f'latency.dtype: the runtime of "{setting.probe}" has no kernels for most layers in '
            f'"{setting.dtype}". Use {quoted(probe.dtypes, " or ")}.'
        )
    return probe


def prepare(
    model: nn.Module, example_inputs: object, setting: LatencySetting
) -> AbstractContextManager[Timed]:
    """Return a context in which a copy of the model is ready to be timed under the setting.

    Args:
        model: the model to time. It is not changed.
        example_inputs: a Tensor, a tuple of inputs or a dict of keyword inputs, with the batch on axis 0.
        setting: the probe, and how it runs the model.

    Raises:
        ConfigError: there is no such probe or device, or the probe does not support the setting.
        LatencyError: the model does not run under the setting.
    """
    return check_probe(setting).probe(model, example_inputs, setting)
