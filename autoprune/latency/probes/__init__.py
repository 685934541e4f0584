"""The probes: one a runtime, each in a file of its own.

Before: a model, example inputs and a LatencySetting; after: `timing` calls what a probe yields. A new probe
is a context manager (model, example inputs, setting) -> Timed and a row in PROBES; a user's own function
joins under its name "package.module:function".

    with prepare(model, torch.zeros(1, 3, 32, 32), LatencySetting("onnx")) as timed:
        timed()      # milliseconds of one forward pass
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeAlias

from torch import nn

from autoprune.latency.probes.command import user_command
from autoprune.latency.probes.compiled import compiled
from autoprune.latency.probes.eager import eager
from autoprune.latency.probes.function import user_function
from autoprune.latency.probes.onnx_runtime import onnx_runtime
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed
from autoprune.support.userfunction import look_up

Probe: TypeAlias = Callable[[nn.Module, object, LatencySetting], AbstractContextManager[Timed]]
"""(model, example inputs of any batch, setting) -> context in which the model is ready to be timed."""

PROBES: dict[str, Probe] = {
    "eager": eager,
    "compile": compiled,
    "onnx": onnx_runtime,
    "command": user_command,
}
"""Name -> probe."""


def find_probe(name: str) -> Probe:
    """Return the probe of that name, or the one that a user's own "package.module:function" makes.

    Raises:
        ConfigError: no such probe (the nearest is suggested), or no such function.
    """
    found = look_up(name, PROBES, "latency.probe")
    return PROBES[name] if name in PROBES else partial(user_function, found)


def prepare(
    model: nn.Module, example_inputs: object, setting: LatencySetting
) -> AbstractContextManager[Timed]:
    """Return the context in which a copy of the model is ready to be timed under the setting.

    Args:
        model: it is not changed.
        example_inputs: a Tensor, a tuple of inputs or a dict of keyword inputs, the batch on axis 0.
        setting: the probe, and how it runs the model.

    Raises:
        ConfigError: no such probe or device.
        LatencyError: the model does not run there.
    """
    return find_probe(setting.probe)(model, example_inputs, setting)
