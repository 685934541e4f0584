"""The probe "eager": the model in eager PyTorch, timed by the wall clock on the CPU and by events on CUDA.

On CUDA the forward pass is captured as a CUDA graph if possible, as a server with latency limits would do.

Example:
    with eager(model, torch.zeros(1, 3, 224, 224), LatencySetting(threads=2)) as timed:
        timed()      # milliseconds of one forward pass
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autoprune.errors import LatencyError, reason_of
from autoprune.graph.capture import call
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed, placed_copy, random_inputs
from autoprune.support.threads import cpu_threads

_log = logging.getLogger(__name__)

_RUNS_BEFORE_CAPTURE = 3
"""torch's notes on CUDA graphs advise to run first, since libraries allocate and choose kernels then."""


@contextlib.contextmanager
def eager(model: nn.Module, example_inputs: object, setting: LatencySetting) -> Iterator[Timed]:
    """Make a copy of a model ready to be timed in eager PyTorch.

    Raises:
        ConfigError: torch does not see the setting's device.
        LatencyError: the model does not run under the setting.
    """
    with cpu_threads(setting.threads):
        placed, inputs = placed_copy(model, setting), random_inputs(example_inputs, setting)

        def run() -> object:
            return call(placed, inputs)

        first_run(run, type(model).__name__, setting)
        yield eager_timed(run, setting)


def eager_timed(run: Callable[[], object], setting: LatencySetting) -> Timed:
    """Return a function that times `run` by the clock of its device, as a CUDA graph if possible."""
    return events_timed(_graphed(run, setting), setting) if setting.on_cuda else wall_timed(run, setting)


def first_run(run: Callable[[], object], model: str, setting: LatencySetting) -> None:
    """Run a model once, so that a model that does not run is reported before timing starts.

    Raises:
        LatencyError: the model does not run under the setting.
    """
    try:
        with torch.inference_mode():
            run()
    except Exception as error:  # models and compilers may raise anything
        raise LatencyError(
            f'{model} does not run under latency.probe = "{setting.probe}" on {setting.device} in '
            f"{setting.dtype}: {reason_of(error)}"
        ) from error


def wall_timed(run: Callable[[], object], setting: LatencySetting) -> Timed:
    """Return a function that times `run` by the wall clock, in inference mode on the setting's threads."""

    def timed() -> float:
        if torch.get_num_threads() != setting.threads:  # a model of another setting ran in between
            torch.set_num_threads(setting.threads)
        with torch.inference_mode():
            started = time.perf_counter_ns()
            run()
            return (time.perf_counter_ns() - started) / 1e6

    return timed


def events_timed(run: Callable[[], object], setting: LatencySetting) -> Timed:
    """Return a function that times `run` by events on the current stream of the GPU.

    It synchronizes first, so that no earlier work in the queue is timed.
    """

    def timed() -> float:
        with torch.cuda.device(setting.device), torch.inference_mode():
            started: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # torch leaves it untyped
            ended: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]  # as above
            torch.cuda.synchronize()
            started.record()
            run()
            ended.record()
            ended.synchronize()
            return float(started.elapsed_time(ended))

    return timed


def _graphed(run: Callable[[], object], setting: LatencySetting) -> Callable[[], object]:
    """Return a function that replays the forward pass as a CUDA graph, or `run` if it cannot be captured."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.device(setting.device), torch.inference_mode():
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(_RUNS_BEFORE_CAPTURE):
                run()
        torch.cuda.current_stream().wait_stream(side)
        try:
            # A failed capture leaves its own stream as the current one. The outer block restores it.
            with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
                run()
        except RuntimeError as error:  # for example a pass that waits for the GPU
            torch.cuda.synchronize()
            _log.info("timed without CUDA graphs: the forward pass cannot be captured (%s)", reason_of(error))
            return run
    return _Graphed(graph, run)


@dataclass(frozen=True, eq=False)
class _Graphed:
    """A captured forward pass.

    Attributes:
        graph: the graph, which reads inputs and weights at their addresses during the capture.
        captured: keeps these tensors alive, so that their memory is not reused.
    """

    graph: torch.cuda.CUDAGraph
    captured: Callable[[], object]

    def __call__(self) -> None:
        """Run the forward pass once."""
        self.graph.replay()
