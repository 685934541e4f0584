"""The probe "command": a program of the user's own that times an ONNX file, on a phone or a board say.

The command runs in the shell, with the path of the file in place of "{onnx}", once for every run that is
timed. The last line that it prints is the milliseconds of one forward pass. Whatever it has started and left
running is ended with it. The file's batch is the setting's. Over ssh and adb:

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
from autoprune.latency.setting import ONNX_PLACE, LatencySetting
from autoprune.latency.timing import Timed

MOST_OUTPUT = 2**26
"""Bytes that a command may print: 64 MB."""

_KEPT = 2**16
"""Bytes of its output that are kept, from the end: only the last line counts."""

_BLOCK = 2**16
_LONGEST_NAP_S = 0.02

_MARK = "AUTOPRUNE_COMMAND"
"""Environment variable by which all that a command has started is known."""

_GRACE_S = 2.0
"""How long the rest of the output is waited for after the end."""


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
        yield lambda: _run(line, setting.command_seconds)


def _run(line: str, most_seconds: float) -> float:
    where = f"latency.command: `{line}`"
    mark = f"{_MARK}={uuid.uuid4().hex}"
    # A session of its own, so that all that the shell has started ends with it.
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
        # A daemon that dropped its environment may hold the pipes open: it has printed nothing that counts.
        printed.join(_GRACE_S)
        complaints.join(_GRACE_S)
    if problem is not None:
        raise LatencyError(f"{where} {problem}; try it by hand.")
    if process.returncode != 0:
        raise LatencyError(f"{where} failed with code {process.returncode}: {complaints.last_line()}")
    return checked_milliseconds(printed.last_line(), f"{where} printed")


def _wait(process: subprocess.Popen[bytes], outputs: Sequence[_Tail], most_seconds: float) -> str | None:
    """Wait until a process has ended. Return the reason if it has to be killed before."""
    deadline, nap_s = time.monotonic() + most_seconds, 0.001
    while process.poll() is None:
        if time.monotonic() > deadline:
            return f"has not ended after {most_seconds:g} s (latency.command_seconds)"
        if any(output.size > MOST_OUTPUT for output in outputs):
            return f"printed more than {MOST_OUTPUT >> 20} MB"
        time.sleep(nap_s)
        nap_s = min(2 * nap_s, _LONGEST_NAP_S)
    return None


def _end_marked(mark: bytes) -> None:
    """End the processes that have left the session, on systems that show the environments of processes.

    A process that starts another during one look is met at the next one, with those that it has started.
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
    """Yield the environments of the processes that can be read; those that have ended have none."""
    for path in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            yield int(path.parent.name), path.read_bytes()


class _Tail(threading.Thread):
    """Reads a stream to its end, and keeps the last of it.

    Attributes:
        size: bytes that were read.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(daemon=True)
        self.size = 0
        self._stream = stream
        self._kept = b""
        self.start()

    def run(self) -> None:
        """Read until nobody can write to the stream any more."""
        with self._stream as stream:
            while block := os.read(stream.fileno(), _BLOCK):
                self.size += len(block)
                self._kept = (self._kept + block)[-_KEPT:]

    def last_line(self) -> str:
        """Return the last line that holds anything."""
        lines = [line.strip() for line in self._kept.decode("utf-8", "replace").splitlines() if line.strip()]
        return lines[-1] if lines else "nothing"
