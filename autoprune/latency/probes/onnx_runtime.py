"""The probe "onnx": the exported model in ONNX Runtime, on the CPU or on CUDA.

All graph optimisations are on, as by default. ONNX Runtime chooses the memory layout.

Example:
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
        model: the model to export. It is not changed.
        example_inputs: inputs of any batch size.
        setting: number format, and the file's batch size unless that is free.
        path: the file to write.
        free_batch: whether the file accepts any batch size, as the files of `autoprune.export` do.

    Raises:
        LatencyError: the model cannot be exported.
    """
    on_cpu = replace(setting, device="cpu", batch=2 if free_batch else setting.batch)
    placed, inputs = placed_copy(model, on_cpu), random_inputs(example_inputs, on_cpu)
    try:
        with torch.no_grad():
            write_onnx(placed, inputs, path, free_batch=free_batch)
    except Exception as error:  # exporters may raise anything
        raise LatencyError(
            f'latency.probe = "{setting.probe}": {type(model).__name__} cannot be exported to ONNX: '
            f"{reason_of(error)}"
        ) from error


def open_session(path: Path, setting: LatencySetting, profile: Path | None = None) -> Any:
    """Open an ONNX file in ONNX Runtime, on the setting's device and threads.

    Args:
        path: the file.
        setting: the device and the threads.
        profile: path prefix of a profile with the times of single nodes. The session's `end_profiling`
            returns the path of the profile and ends it, so that later runs are not slowed by it.

    Raises:
        LatencyError: ONNX Runtime cannot open the file, or has no provider for the device.
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
    # Threads of this session would otherwise spin after a run, while the next model is timed.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    provider, given = "CPUExecutionProvider", {}
    if setting.on_cuda:
        provider, given = "CUDAExecutionProvider", {"device_id": torch.device(setting.device).index or 0}
    if provider not in onnxruntime.get_available_providers():
        raise LatencyError(
            f'latency.device: got "{setting.device}", but this onnxruntime has no {provider}. Install '
            'onnxruntime-gpu or use device = "cpu".'
        )
    try:
        session = onnxruntime.InferenceSession(path, options, providers=[(provider, given)])
    except Exception as error:  # onnxruntime's own errors share no class
        raise LatencyError(f"{path.name}: ONNX Runtime cannot open it: {reason_of(error)}") from error
    if session.get_providers()[0] != provider:  # onnxruntime falls back to the CPU with only a warning
        raise LatencyError(
            f'latency.device: got "{setting.device}", but {provider} does not start. Check that its '
            'CUDA and cuDNN libraries are found, or use device = "cpu".'
        )
    return session


def session_timed(session: Any, inputs: ExampleInputs, setting: LatencySetting, model: str) -> Timed:
    """Return a function that times an open session on inputs that are already on its device.

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
    """Return a function that runs the session once."""
    feed = onnx_feed(session, inputs)
    if not setting.on_cuda:
        return partial(session.run, None, feed)
    binding = _bound(session, feed, torch.device(setting.device).index or 0)

    def run() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    return run


def _bound(session: Any, feed: dict[str, Any], device: int) -> Any:
    """Bind inputs and outputs to the GPU, so that no copies are timed."""
    import onnxruntime

    binding = session.io_binding()
    for name, array in feed.items():
        binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", device))
    for output in session.get_outputs():
        binding.bind_output(output.name, "cuda", device)
    binding.synchronize_inputs()
    return binding
