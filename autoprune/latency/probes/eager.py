"""The probe "eager": the model as PyTorch runs it, on the CPU by the wall clock, on CUDA by events.

Before: a model and example inputs; after: `timing` calls what this yields.

    with eager(model, torch.zeros(1, 3, 224, 224), LatencySetting(threads=2)) as timed:
        timed()      # milliseconds of one forward pass
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import torch
from torch import nn

from autoprune.graph.capture import call
from autoprune.latency.placing import cpu_threads, placed_copy, random_inputs
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed


@contextlib.contextmanager
def eager(model: nn.Module, example_inputs: object, setting: LatencySetting) -> Iterator[Timed]:
    """Make a model ready to be timed as PyTorch runs it.

    Raises:
        ConfigError: the setting's device is not there.
    """
    with cpu_threads(setting.threads):
        placed, inputs = placed_copy(model, setting), random_inputs(example_inputs, setting)
        yield wall_timed(lambda: call(placed, inputs), setting)


def wall_timed(run: Callable[[], object], setting: LatencySetting) -> Timed:
    """Time a function by the wall clock, in inference mode and on the setting's threads."""

    def timed() -> float:
        if torch.get_num_threads() != setting.threads:  # another probe's turn came in between
            torch.set_num_threads(setting.threads)
        with torch.inference_mode():
            started = time.perf_counter_ns()
            run()
            return (time.perf_counter_ns() - started) / 1e6

    return timed
