"""The probe "compile": the model compiled by `torch.compile` for its exact shapes.

On the CPU it needs a C++ compiler.

Example:
    with compiled(model, torch.zeros(1, 3, 224, 224), LatencySetting("compile")) as timed:
        timed()      # milliseconds of one forward pass
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import nn

from autoprune.graph.capture import quiet_export
from autoprune.latency.probes.eager import events_timed, first_run, wall_timed
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed, placed_copy, random_inputs
from autoprune.support.threads import cpu_threads

_NO_LIMIT = 2**20


@contextlib.contextmanager
def compiled(model: nn.Module, example_inputs: object, setting: LatencySetting) -> Iterator[Timed]:
    """Compile a copy of a model and make it ready to be timed.

    Raises:
        ConfigError: torch does not see the setting's device.
        LatencyError: the model cannot be compiled, for example because there is no C++ compiler.
    """
    with cpu_threads(setting.threads):
        placed, inputs = placed_copy(model, setting), random_inputs(example_inputs, setting)
        fast = torch.compile(placed, dynamic=False)

        def run() -> object:
            return fast(**inputs) if isinstance(inputs, dict) else fast(*inputs)

        # torch counts the compilations of all models of one class together. After 8 it would silently run
        # them uncompiled.
        limits = torch._dynamo.config.patch(
            recompile_limit=_NO_LIMIT,
            accumulated_recompile_limit=_NO_LIMIT,
            fail_on_recompile_limit_hit=True,
        )
        with limits, quiet_export():
            first_run(run, type(model).__name__, setting)
        yield events_timed(run, setting) if setting.on_cuda else wall_timed(run, setting)
