"""Time the operators of a candidate one by one inside its whole forward pass.

A probe that can time single operators has a row in PROFILERS. With any other probe only whole passes are
timed.

Example:
    profiler = make_profiler(prunable, setting)
    profiler.found.operators[1].name            # "layer1.0.conv1"
    with profiler.open(widths) as opened:       # int64 [groups]
        opened.profiled()                       # a forward pass in which each operator is timed
        opened.profile().ms                     # float64 [passes, operators] of the passes so far
        opened.timed()                          # milliseconds of a forward pass
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.graph import Prunable
from autoprune.graph.capture import call
from autoprune.latency.probes import find_probe, prepare
from autoprune.latency.probes.eager import first_run, wall_timed
from autoprune.latency.probes.onnx_runtime import open_session, session_timed
from autoprune.latency.setting import LatencySetting
from autoprune.latency.table._candidates import narrowed
from autoprune.latency.table._onnx_template import OnnxTemplate, make_template
from autoprune.latency.table._operator_sizes import Observations, observe
from autoprune.latency.table._operators import Call, Operators, make_operators
from autoprune.latency.timing import Timed, placed_copy, random_inputs
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.support.threads import cpu_threads


@dataclass(frozen=True, eq=False)
class Profile:
    """The times of a candidate's operators.

    Attributes:
        ms: float64 [passes, operators], milliseconds.
        events: int64 [operators], number of times that were recorded and added up for each operator in a
            pass.
    """

    ms: FloatArray
    events: IntArray


@dataclass(frozen=True)
class ReadyCandidate:
    """A candidate that is ready to be timed.

    Attributes:
        timed: runs one forward pass and returns its milliseconds.
        profiled: like `timed`, and records the time of each operator, or None if the probe cannot.
        profile: ends the profile and returns it. Call it once, and before `timed`: a runtime may be slower
            while it records a profile.
    """

    timed: Timed
    profiled: Timed | None = None
    profile: Callable[[], Profile] | None = None


@dataclass(frozen=True)
class Profiler:
    """Makes candidates of one model ready to be timed under a setting.

    Attributes:
        found: the operators of the model.
        open: widths [groups] -> context in which that candidate is ready.
        times_operators: whether the times of operators are recorded.
    """

    found: Operators
    open: Callable[[IntArray], AbstractContextManager[ReadyCandidate]]
    times_operators: bool = True


def make_profiler(prunable: Prunable, setting: LatencySetting) -> Profiler:
    """Make the profiler of a model by the row of PROFILERS that its probe names, or one of whole passes.

    Raises:
        ConfigError: there is no such probe or device.
        LatencyError: the model does not run under the setting.
    """
    make = _whole if setting.on_cuda else PROFILERS.get(find_probe(setting.probe).operators, _whole)
    return make(prunable, setting, observe(prunable))


def _eager(prunable: Prunable, setting: LatencySetting, sizes: Observations) -> Profiler:
    found = make_operators(_observed_calls(prunable, sizes), sizes)

    @contextlib.contextmanager
    def opened(widths: IntArray) -> Iterator[ReadyCandidate]:
        model = placed_copy(narrowed(prunable, widths), setting)
        inputs = random_inputs(prunable.example_inputs, setting)
        run = partial(call, model, inputs)
        with cpu_threads(setting.threads):
            first_run(run, type(model).__name__, setting)
            timed = wall_timed(run, setting)
            timer = _CallTimer()

            def profiled() -> float:
                timer.passes.append([])
                with timer:
                    return timed()

            def profile() -> Profile:
                rows = [np.bincount(found.owner, each).astype(np.float64) for each in timer.passes]
                return Profile(np.array(rows).reshape(-1, len(found.operators)), np.bincount(found.owner))

            yield ReadyCandidate(timed, profiled, profile)

    return Profiler(found, opened)


class _CallTimer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
    """A block that times each operator that runs in it, without the Python code in between."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.passes: list[list[float]] = []

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run and time one operator."""
        kwargs = kwargs or {}
        started = time.perf_counter_ns()
        result = func(*args, **kwargs)
        self.passes[-1].append((time.perf_counter_ns() - started) / 1e6)
        return result


def _observed_calls(prunable: Prunable, sizes: Observations) -> list[list[Call]]:
    """Run the model on the CPU at each observation's widths, and return its calls.

    Raises:
        LatencyError: the model does not run.
    """
    setting = LatencySetting()
    inputs = random_inputs(prunable.example_inputs, setting)
    observed = []
    for widths in sizes.widths:
        model = placed_copy(narrowed(prunable, widths), setting)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        with _CallRecorder(names) as recorder:
            first_run(partial(call, model, inputs), type(model).__name__, setting)
        observed.append(recorder.calls)
    return observed


class _CallRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
    """A block that records each operator that runs in it, with all its numbers."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.calls: list[Call] = []
        self._names = names

    def __torch_dispatch__(
        self,
        func: Callable[..., object],
        types: object,
        args: tuple[object, ...] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run and record one operator."""
        result = func(*args, **(kwargs or {}))
        leaves = pytree.tree_leaves((args, kwargs, result))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        integers = [leaf for leaf in leaves if isinstance(leaf, int) and not isinstance(leaf, bool)]
        self.calls.append(
            Call(
                kind=f"{func} {[tensor.ndim for tensor in tensors]} {len(integers)}",
                shapes=tuple(tuple(tensor.shape) for tensor in tensors),
                integers=tuple(integers),
                weights={
                    place: self._names[id(tensor)]
                    for place, tensor in enumerate(tensors)
                    if id(tensor) in self._names
                },
            )
        )
        return result


def _onnx(prunable: Prunable, setting: LatencySetting, sizes: Observations) -> Profiler:
    template = make_template(prunable, sizes, setting)
    found = make_operators(template.calls, sizes)
    of_node = dict(zip(template.nodes, found.owner, strict=True))
    inputs = random_inputs(prunable.example_inputs, replace(setting, device="cpu"))

    @contextlib.contextmanager
    def opened(widths: IntArray) -> Iterator[ReadyCandidate]:
        with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
            path = Path(folder) / "model.onnx"
            template.write(widths, path)
            session = open_session(path, setting, Path(folder) / "profile")
            timed = session_timed(session, inputs, setting, type(prunable.model).__name__)

            def profile() -> Profile:
                events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
                return _read_events(events, template, of_node, len(found.operators))

            yield ReadyCandidate(timed, timed, profile)

    return Profiler(found, opened)


_KERNEL = "_kernel_time"
"""Suffix of the events that time the kernels of nodes."""


def _read_events(
    events: Sequence[Mapping[str, Any]], template: OnnxTemplate, of_node: Mapping[str, int], operators: int
) -> Profile:
    """Add up the times of an ONNX Runtime profile for each pass and operator.

    A fused node has the name of a node that it replaces or of the tensor that it writes. Nodes that the
    optimiser inserts (to reorder channels) have neither, and are added to the operator before them.
    """
    kernels = [event for event in events if str(event.get("name", "")).endswith(_KERNEL)]
    in_order = [int(event["args"]["node_index"]) for event in kernels]
    # Every pass runs the same nodes in the same order, so the next pass begins when the first node repeats.
    per_pass = in_order.index(in_order[0], 1) if in_order[0] in in_order[1:] else len(in_order)
    owner, owners = 0, []
    for event in kernels[:per_pass]:
        name = str(event["name"]).removesuffix(_KERNEL)
        tensor = name.removesuffix("_nchwc")
        owner = of_node.get(template.outputs.get(tensor, name), owner)
        owners.append(owner)
    milliseconds = np.array([float(event["dur"]) / 1e3 for event in kernels]).reshape(-1, per_pass)
    rows = [np.bincount(owners, each, operators).astype(np.float64) for each in milliseconds]
    return Profile(np.stack(rows), np.bincount(owners, minlength=operators))


def _whole(prunable: Prunable, setting: LatencySetting, sizes: Observations) -> Profiler:
    """Make a profiler that times only whole passes with any probe. The operators are those of PyTorch."""
    found = make_operators(_observed_calls(prunable, sizes), sizes)

    @contextlib.contextmanager
    def opened(widths: IntArray) -> Iterator[ReadyCandidate]:
        with prepare(narrowed(prunable, widths), prunable.example_inputs, setting) as timed:
            yield ReadyCandidate(timed)

    return Profiler(found, opened, times_operators=False)


MakeProfiler: TypeAlias = Callable[[Prunable, LatencySetting, Observations], Profiler]

PROFILERS: dict[str, MakeProfiler] = {"torch": _eager, "onnx": _onnx}
"""{`operators` of a probe: the profiler that times operators one by one on the CPU}."""
