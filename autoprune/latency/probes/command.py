"""The probe "command": a program of the user's own that times an ONNX file, on a phone or a board say.

Before: a model and example inputs; after: `timing` calls what this yields. The command runs in the shell,
with the path of the file in place of "{onnx}", once for every run that is timed; the last line that it prints
is the milliseconds of one forward pass. The file's batch is the setting's. Over ssh and adb:

    command = "scp -q {onnx} pi:m.onnx && ssh pi python3 time_onnx.py m.onnx"
    command = "adb push {onnx} /data/local/tmp/m.onnx >&2 && adb shell 'cd /data/local/tmp && ./time m.onnx'"
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from torch import nn

from autoprune.errors import LatencyError
from autoprune.latency.probes.function import checked_milliseconds
from autoprune.latency.probes.onnx_runtime import export_for_timing
from autoprune.latency.setting import ONNX_PLACE, LatencySetting
from autoprune.latency.timing import Timed

MOST_SECONDS = 600.0
"""A command that has not ended by then hangs."""


@contextlib.contextmanager
def user_command(model: nn.Module, example_inputs: object, setting: LatencySetting) -> Iterator[Timed]:
    """Export a copy of a model for a command that times it; the file is there as long as the context.

    Raises:
        LatencyError: the model cannot be exported; later, the command fails, hangs or prints no milliseconds.
    """
    with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
        path = Path(folder) / "model.onnx"
        export_for_timing(model, example_inputs, setting, path, free_batch=False)
        line = str(setting.command).replace(ONNX_PLACE, shlex.quote(str(path)))
        yield lambda: _run(line)


def _run(line: str) -> float:
    # A session of its own, so that what the shell has started ends with it.
    process = subprocess.Popen(
        line,
        shell=True,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
    )
    try:
        printed, complaints = process.communicate(timeout=MOST_SECONDS)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise LatencyError(
                f"latency.command: `{line}` has not ended after {MOST_SECONDS:.0f} s; try it by hand."
            ) from None
        raise
    if process.returncode != 0:
        raise LatencyError(
            f"latency.command: `{line}` failed with code {process.returncode}: {_last_line(complaints)}"
        )
    return checked_milliseconds(_last_line(printed), f"latency.command: `{line}` printed")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "nothing"
