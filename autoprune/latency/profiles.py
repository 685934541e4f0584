"""Own profiles: how a runtime times the operators of a candidate one by one, inside its whole forward pass.

Before: widths from `design`; after: `tabulate` runs each candidate beside the dense model. A runtime that
can tell the time of each operator is a profiler and a row in PROFILERS; for any other probe candidates are
timed whole, and their operators in eager PyTorch.

    profiler = make_profiler(prunable, setting)
    profiler.operators[1].name                  # "layer1.0.conv1"
    with profiler.open(widths) as opened:       # int64 [groups]
        opened.timed()                          # milliseconds of a forward pass
        opened.operator_ms(10)                  # float64 [operators], from ten passes
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
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from autoprune.graph import Prunable
from autoprune.graph.capture import ExampleInputs, call
from autoprune.latency.onnx_template import OnnxTemplate, make_template
from autoprune.latency.operators import Call, Operator, make_operators
from autoprune.latency.placing import cpu_threads, placed_copy, random_inputs
from autoprune.latency.probes import prepare
from autoprune.latency.probes.eager import wall_timed
from autoprune.latency.probes.onnx_runtime import open_session, session_timed
from autoprune.latency.setting import LatencySetting
from autoprune.latency.sizes import Observations, observe
from autoprune.latency.timing import Timed
from autoprune.latency.widths import narrowed

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

_TRIMMED = 0.25
"""Share of the fastest and slowest passes that a mean leaves out: runtimes report whole microseconds."""


@dataclass(frozen=True)
class Opened:
    """A candidate that is ready to be timed.

    Attributes:
        timed: runs it once, and returns its milliseconds.
        operator_ms: runs it so many times, and returns the milliseconds [operators] of each operator in a
            pass. Called at most once, after at least one `timed()`.
    """

    timed: Timed
    operator_ms: Callable[[int], FloatArray]


@dataclass(frozen=True)
class Profiler:
    """A model under a setting, at any widths.

    Attributes:
        operators: the pieces of the model.
        open: widths [groups] -> context in which that candidate is ready.
    """

    operators: tuple[Operator, ...]
    open: Callable[[IntArray], AbstractContextManager[Opened]]


def make_profiler(prunable: Prunable, setting: LatencySetting) -> Profiler:
    """Make the profiler of a model: its probe's own row of PROFILERS, or candidates timed whole.

    Raises:
        ConfigError: no such probe or device.
        LatencyError: the model does not run there.
    """
    make = _whole if setting.on_cuda else PROFILERS.get(setting.probe, _whole)
    return make(prunable, setting, observe(prunable))


def _eager(prunable: Prunable, setting: LatencySetting, sizes: Observations) -> Profiler:
    operators, owner = make_operators(_observed_calls(prunable, sizes), sizes)

    @contextlib.contextmanager
    def opened(widths: IntArray) -> Iterator[Opened]:
        model = placed_copy(narrowed(prunable, widths), setting)
        inputs = random_inputs(prunable.example_inputs, setting)
        with cpu_threads(setting.threads):
            timed = wall_timed(partial(call, model, inputs), setting)
            yield Opened(timed, partial(_eager_operators, model, inputs, owner))

    return Profiler(tuple(operators), opened)


def _eager_operators(model: nn.Module, inputs: ExampleInputs, owner: Sequence[int], runs: int) -> FloatArray:
    rows = []
    for _ in range(runs):
        with torch.inference_mode(), _CallTimer() as timer:
            call(model, inputs)
        rows.append(np.bincount(owner, timer.milliseconds, max(owner) + 1))
    return _trimmed(np.stack(rows))


class _CallTimer(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
    """Time each operator that runs; what Python does between them is not counted."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # as above
        self.milliseconds: list[float] = []

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
        self.milliseconds.append((time.perf_counter_ns() - started) / 1e6)
        return result


def _observed_calls(prunable: Prunable, sizes: Observations) -> list[list[Call]]:
    """Run the model on the CPU at each observation's widths, and return the calls that it makes."""
    setting = LatencySetting()
    inputs = random_inputs(prunable.example_inputs, setting)
    observed = []
    for widths in sizes.widths:
        model = placed_copy(narrowed(prunable, widths), setting)
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        with torch.inference_mode(), _CallRecorder(names) as recorder:
            call(model, inputs)
        observed.append(recorder.calls)
    return observed


class _CallRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch gives no hints
    """Note each operator that runs, with all its numbers."""

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
        """Run and note one operator."""
        result = func(*args, **(kwargs or {}))
        leaves = pytree.tree_leaves((args, kwargs, result))
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        integers = [leaf for leaf in leaves if isinstance(leaf, int) and not isinstance(leaf, bool)]
        weight = next((self._names[id(each)] for each in tensors if id(each) in self._names), "")
        self.calls.append(
            Call(
                kind=f"{func} {[tensor.ndim for tensor in tensors]} {len(integers)}",
                numbers=(*(length for tensor in tensors for length in tensor.shape), *integers),
                weight=weight,
            )
        )
        return result


def _onnx(prunable: Prunable, setting: LatencySetting, sizes: Observations) -> Profiler:
    template = make_template(prunable, sizes, setting)
    operators, owner = make_operators(template.calls, sizes)
    of_node = dict(zip(template.nodes, owner, strict=True))
    inputs = random_inputs(prunable.example_inputs, replace(setting, device="cpu"))

    @contextlib.contextmanager
    def opened(widths: IntArray) -> Iterator[Opened]:
        with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
            path = Path(folder) / "model.onnx"
            template.write(widths, path)
            session = open_session(path, setting, Path(folder) / "profile")
            timed = session_timed(session, inputs, setting, type(prunable.model).__name__)

            def operator_ms(runs: int) -> FloatArray:
                for _ in range(runs):
                    timed()
                events = json.loads(Path(session.end_profiling()).read_text("utf-8"))
                return _trimmed(_event_rows(events, template, of_node, len(operators))[-runs:])

            yield Opened(timed, operator_ms)

    return Profiler(tuple(operators), opened)


_KERNEL = "_kernel_time"


def _event_rows(
    events: Sequence[Mapping[str, Any]], template: OnnxTemplate, of_node: Mapping[str, int], operators: int
) -> FloatArray:
    """Return the milliseconds [runs, operators] of the passes in a profile of ONNX Runtime.

    A fused node bears the name of one that it replaces or of the tensor that it writes. Nodes that the
    optimiser puts in between (to reorder channels) bear neither, and count to the operator before them.
    """
    kernels = [event for event in events if str(event.get("name", "")).endswith(_KERNEL)]
    per_run: list[FloatArray] = []
    first = kernels[0]["args"]["node_index"] if kernels else None
    owner = 0
    for event in kernels:
        if event["args"]["node_index"] == first:
            per_run.append(np.zeros(operators))
        name = str(event["name"]).removesuffix(_KERNEL)
        tensor = name.removesuffix("_nchwc")
        owner = of_node.get(template.outputs.get(tensor, name), owner)
        per_run[-1][owner] += float(event["dur"]) / 1e3
    return np.stack(per_run)


def _trimmed(rows: FloatArray) -> FloatArray:
    mean: FloatArray = np.asarray(stats.trim_mean(rows, _TRIMMED, axis=0))
    return mean


def _whole(prunable: Prunable, setting: LatencySetting, sizes: Observations) -> Profiler:
    """Time candidates whole by any probe, and their operators in eager PyTorch on this CPU.

    What the operators take there is scaled to what the whole takes under the probe when the table is
    fitted; the error on candidates held out tells how far that carries.
    """
    eager = _eager(prunable, LatencySetting(batch=setting.batch, threads=setting.threads), sizes)

    @contextlib.contextmanager
    def opened(widths: IntArray) -> Iterator[Opened]:
        with (
            eager.open(widths) as companion,
            prepare(narrowed(prunable, widths), prunable.example_inputs, setting) as timed,
        ):
            yield Opened(timed, companion.operator_ms)

    return Profiler(eager.operators, opened)


MakeProfiler: TypeAlias = Callable[[Prunable, LatencySetting, Observations], Profiler]

PROFILERS: dict[str, MakeProfiler] = {"eager": _eager, "onnx": _onnx}
"""Probe -> what times its operators one by one on the CPU; all others are timed by `_whole`."""
