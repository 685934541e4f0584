"""The probe "compile": the model after `torch.compile`, for its exact shapes.

Before: a model and example inputs; after: `timing` calls what this yields. On the CPU it takes a C++
compiler.

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
        ConfigError: the setting's device is not there.
        LatencyError: the model cannot be compiled here, for want of a C++ compiler for example.
    """
    with cpu_threads(setting.threads):
        placed, inputs = placed_copy(model, setting), random_inputs(example_inputs, setting)
        fast = torch.compile(placed, dynamic=False)

        def run() -> object:
            return fast(**inputs) if isinstance(inputs, dict) else fast(*inputs)

        # Models of one class share torch's count of compilations, past 8 of which it runs them uncompiled.
        limits = torch._dynamo.config.patch(
            recompile_limit=_NO_LIMIT,
            accumulated_recompile_limit=_NO_LIMIT,
            fail_on_recompile_limit_hit=True,
        )
        with limits, quiet_export():
            first_run(run, type(model).__name__, setting)
        yield events_timed(run, setting) if setting.on_cuda else wall_timed(run, setting)
