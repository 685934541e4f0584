"""The probe "onnx": the file that `autoprune.export` writes, in ONNX Runtime on the CPU or on CUDA.

Before: a model and example inputs, or a file; after: `timing` calls what comes from here. Graph optimisations
are all on, as they are by default; the memory layout is ONNX Runtime's own choice.

    with onnx_runtime(model, torch.zeros(1, 3, 224, 224), LatencySetting("onnx", threads=2)) as timed:
        timed()      # milliseconds of one forward pass
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autoprune.errors import LatencyError, reason_of
from autoprune.exporting import onnx_feed, write_onnx
from autoprune.graph.capture import ExampleInputs
from autoprune.latency.setting import LatencySetting
from autoprune.latency.timing import Timed, placed_copy, random_inputs


@contextlib.contextmanager
def onnx_runtime(model: nn.Module, example_inputs: object, setting: LatencySetting) -> Iterator[Timed]:
    """Export a copy of a model and make it ready to be timed in ONNX Runtime.

    Raises:
        LatencyError: the model cannot be exported or does not run in ONNX Runtime.
    """
    inputs = random_inputs(example_inputs, replace(setting, device="cpu"))
    with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
        path = Path(folder) / "model.onnx"
        export_for_timing(model, example_inputs, setting, path, free_batch=True)
        session = open_session(path, setting)
    yield session_timed(session, inputs, setting, type(model).__name__)


def export_for_timing(
    model: nn.Module, example_inputs: object, setting: LatencySetting, path: Path, *, free_batch: bool
) -> None:
    """Write a copy of the model in the setting's number format as an ONNX file.

    Args:
        model: it is not changed.
        example_inputs: of any batch.
        setting: its batch is the file's where that is not free.
        path: the file.
        free_batch: whether the file takes any batch, as those of `autoprune.export` do.

    Raises:
        LatencyError: the model cannot be exported.
    """
    on_cpu = replace(setting, device="cpu", batch=2 if free_batch else setting.batch)
    placed, inputs = placed_copy(model, on_cpu), random_inputs(example_inputs, on_cpu)
    try:
        with torch.no_grad():
            write_onnx(placed, inputs, path, free_batch=free_batch)
    except Exception as error:  # exporters raise whatever their packages raise
        raise LatencyError(
            f'latency.probe = "{setting.probe}": {type(model).__name__} cannot be exported to ONNX: '
            f"{reason_of(error)}"
        ) from error


def open_session(path: Path, setting: LatencySetting, profile: Path | None = None) -> Any:
    """Open an ONNX file in ONNX Runtime, on the setting's device and threads.

    Args:
        path: the file.
        setting: the device and the threads.
        profile: how the name of a profile starts; given one, `end_profiling` tells where the times of single
            nodes lie, and later runs are free of it.

    Raises:
        LatencyError: ONNX Runtime refuses the file, or has no provider for the device.
    """
    import onnxruntime  # type: ignore[import-untyped]  # the package ships no types

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = 3
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    # Idle threads of one session would otherwise keep the cores busy in the next model's turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider, given = "CPUExecutionProvider", {}
    if setting.on_cuda:
        provider, given = "CUDAExecutionProvider", {"device_id": torch.device(setting.device).index or 0}
    if provider not in onnxruntime.get_available_providers():
        raise LatencyError(
            f'latency.device: "{setting.device}" asked, but this onnxruntime has no {provider}; install '
            'onnxruntime-gpu or use device = "cpu".'
        )
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[(provider, given)])
    except Exception as error:  # onnxruntime's own errors share no class
        raise LatencyError(f"{path.name}: ONNX Runtime cannot open it: {reason_of(error)}") from error
    if session.get_providers()[0] != provider:  # it falls back to the CPU with no more than a warning
        raise LatencyError(
            f'latency.device: "{setting.device}" asked, but {provider} does not start here; check that its '
            'CUDA and cuDNN libraries are found, or use device = "cpu".'
        )
    return session


def session_timed(session: Any, inputs: ExampleInputs, setting: LatencySetting, model: str) -> Timed:
    """Time an open session on its inputs, which lie on its device before the clock starts.

    Raises:
        LatencyError: the inputs do not fit, or the first run fails.
    """
    try:
        run = _fed(session, inputs, setting)
        run()
    except Exception as error:  # onnxruntime's own errors share no class
        raise LatencyError(f"{model} does not run in ONNX Runtime: {reason_of(error)}") from error

    def timed() -> float:
        started = time.perf_counter_ns()
        run()
        return (time.perf_counter_ns() - started) / 1e6

    return timed


def _fed(session: Any, inputs: ExampleInputs, setting: LatencySetting) -> Callable[[], None]:
    """Return what runs the session once."""
    feed = onnx_feed(session, inputs)
    if not setting.on_cuda:
        return partial(session.run, None, feed)
    binding = _bound(session, feed, torch.device(setting.device).index or 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _bound(session: Any, feed: dict[str, Any], device: int) -> Any:
    """Bind inputs and outputs to the GPU, so that no copy is timed."""
    import onnxruntime

    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", device))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", device)
    binding.synchronize_inputs()
    return binding
