"""The probe "command": a command of the user times an ONNX file, for example on a phone or a board.

The command runs in the shell once for every timed run, with the path of the file in place of "{onnx}". The
last line that it prints is the milliseconds of one forward pass. Processes that it leaves running are killed
when it ends. The file has the batch size of the setting. Over ssh and adb:

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
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from torch import nn

from autoprune.errors import LatencyError
from autoprune.latency.probes.function import checked_milliseconds
from autoprune.latency.probes.onnx_runtime import export_for_timing
from autoprune.latency.setting import ONNX_PLACEHOLDER, LatencySetting
from autoprune.latency.timing import Timed

MOST_OUTPUT = 2**26
"""Number of bytes that a command may print: 64 MB."""

_KEPT = 2**16
"""Number of bytes kept from the end of the output, since only the last line is read."""

_BLOCK = 2**16
_LONGEST_NAP_S = 0.02

_MARK = "AUTOPRUNE_COMMAND"
"""Environment variable that marks all processes that a command starts."""

_GRACE_S = 2.0
"""Seconds to wait for the rest of the output, and for the command's processes, after the command ended."""


@contextlib.contextmanager
def user_command(model: nn.Module, example_inputs: object, setting: LatencySetting) -> Iterator[Timed]:
    """Export a copy of a model to a temporary file that the command times.

    The function that is yielded runs the command. It raises LatencyError if the command fails, takes too long
    or prints no milliseconds.

    Raises:
        LatencyError: the model cannot be exported.
    """
    with tempfile.TemporaryDirectory(prefix="autoprune-") as folder:
        path = Path(folder) / "model.onnx"
        export_for_timing(model, example_inputs, setting, path, free_batch=False)
        line = str(setting.command).replace(ONNX_PLACEHOLDER, shlex.quote(str(path)))
        yield lambda: _run(line, setting.command_seconds)


def _run(line: str, most_seconds: float) -> float:
    where = f"latency.command: `{line}`"
    mark = f"{_MARK}={uuid.uuid4().hex}"
    # In a session of its own, the shell and all that it has started can be killed as one process group.
    process = subprocess.Popen(
        line,
        shell=True,
        start_new_session=True,
        env={**os.environ, **dict([mark.split("=")])},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    printed, complaints = _Tail(process.stdout), _Tail(process.stderr)
    try:
        problem = _wait(process, [printed, complaints], most_seconds)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        _end_marked(mark.encode())
        # A daemon that cleared its environment escapes and may hold the pipes open, so the wait is bounded.
        printed.join(_GRACE_S)
        complaints.join(_GRACE_S)
    if problem is not None:
        raise LatencyError(f"{where} {problem}. Run the command by hand to see why.")
    if process.returncode != 0:
        raise LatencyError(f"{where} failed with code {process.returncode}: {complaints.last_line()}")
    return checked_milliseconds(printed.last_line(), f"{where} printed")


def _wait(process: subprocess.Popen[bytes], outputs: Sequence[_Tail], most_seconds: float) -> str | None:
    """Wait until a process ends. Return the reason if it must be killed before that, otherwise None."""
    deadline, nap_s = time.monotonic() + most_seconds, 0.001
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"did not end within {most_seconds:g} s (latency.command_seconds)"
        if any(output.size > MOST_OUTPUT for output in outputs):
            return f"printed more than {MOST_OUTPUT >> 20} MB"
        time.sleep(nap_s)
        nap_s = min(2 * nap_s, _LONGEST_NAP_S)
    return None


def _end_marked(mark: bytes) -> None:
    """Kill the processes that have left the session, on systems that show the environments of processes.

    It searches until none is left, because a process may start another during a search.
    """
    deadline = time.monotonic() + _GRACE_S
    while marked := [pid for pid, environment in _environments() if mark in environment.split(b"\0")]:
        for pid in marked:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return
        time.sleep(_LONGEST_NAP_S)


def _environments() -> Iterator[tuple[int, bytes]]:
    """Iterate over (process id, environment) of all processes whose environment can be read."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_bytes()


class _Tail(threading.Thread):
    """A thread that reads a stream to its end and keeps the last part of it.

    Attributes:
        size: number of bytes read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.size = 0
        self._stream = stream
        self._kept = b""
        self.start()

    def run(self) -> None:
        """Read until every process that could write to the stream has closed it."""
        with self._stream as stream:
            while block := os.read(stream.fileno(), _BLOCK):
                self.size += len(block)
                self._kept = (self._kept + block)[-_KEPT:]

    def last_line(self) -> str:
        """Return the last line that is not empty."""
        lines = [line.strip() for line in self._kept.decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else "nothing"
