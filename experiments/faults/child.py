"""Runs one case in a forked child, which has the modules loaded. Folder, limits and streams are its own.

So a case of the fuzzer takes a fraction of a second. A new interpreter would take several seconds.

    outcome = run_case(case, folders, Limits())
    outcome.code, outcome.errors, outcome.changed
"""

from __future__ import annotations

import atexit
import contextlib
import json
import multiprocessing.util
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
import warnings
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoprune.cli import main
from autoprune.errors import AutopruneError, printable
from experiments.faults.cases import Case
from experiments.faults.material import Folders, Tree
from experiments.faults.steps import apply
from experiments.killing import children, end_orphans

UNPREPARED = 99
"""Exit code of a child whose case could not be prepared: its steps are out of date."""

_PATIENCE_S = 2.0
"""Seconds within which the children of a command have to end after it."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1024**2
_KEPT = 8 * _MIB
"""Bytes of each stream that are kept."""


@dataclass(frozen=True)
class Limits:
    """Limits of a case: seconds, and memory in addition to the memory before it."""

    seconds: float = 30.0
    memory_mib: float = 1000.0


@dataclass(frozen=True)
class Outcome:
    """How a case ended.

    Attributes:
        code: exit code, or minus the signal that ended the process.
        output: standard output.
        errors: standard error.
        seconds: wall time of the command.
        memory_mib: peak in addition to the memory before.
        changed: {path: the change}.
        hung: whether the time was over.
        left: processes that it left running.
        ran: whether code of a received file ran.
    """

    code: int
    output: str
    errors: str
    seconds: float
    memory_mib: float
    changed: dict[str, str]
    hung: bool
    left: int
    ran: bool


def run_case(case: Case, folders: Folders, limits: Limits) -> Outcome:
    """Prepare the folders, run the command, and read its output and files.

    Raises:
        ValueError: the case cannot be prepared.
    """
    own, others = _resident("self"), children()
    # Pipes, since a file of output would be cut by the limits of a case whose disk is full.
    pipes = [os.pipe() for _ in range(3)]
    pid = os.fork()
    if pid == 0:
        _child(case, folders, [write for _, write in pipes])
    for _, write in pipes:
        os.close(write)
    with os.fdopen(pipes[2][0]) as prepared:
        told = prepared.read()  # until the folders are prepared, which counts for no limit
    started = time.monotonic()
    streams = _Streams([read for read, _ in pipes[:2]])
    hung, peak, status = _wait(pid, streams, case.seconds or limits.seconds, limits.memory_mib, own)
    seconds = time.monotonic() - started
    left = end_orphans(_PATIENCE_S, others)
    output, errors = streams.close()
    code = os.waitstatus_to_exitcode(status)
    if code == UNPREPARED or not told:
        raise ValueError(f"{case.id}: cannot be prepared:\n{errors}")
    before: Tree = json.loads(told)
    return Outcome(
        code=code,
        output=output,
        errors=errors,
        seconds=seconds,
        memory_mib=peak,
        changed=_differences(before, folders.tree()),
        hung=hung,
        left=left,
        ran=folders.ran.exists(),
    )


class _Streams:
    """Reads pipes as they fill, and keeps the beginning of their text."""

    def __init__(self, files: list[int]) -> None:
        self._files = files
        self._open = list(files)
        self._read: dict[int, list[bytes]] = {file: [] for file in files}
        self._bytes = dict.fromkeys(files, 0)
        for file in files:
            os.set_blocking(file, False)

    def wait(self, seconds: float) -> bool:
        """Wait for output until a time is over. Return whether anything arrived."""
        if not self._open:
            time.sleep(seconds)
            return False
        ready = select.select(self._open, [], [], seconds)[0]
        for file in ready:
            block = os.read(file, 1 << 16)
            if not block:
                self._open.remove(file)
            elif self._bytes[file] < _KEPT:
                self._bytes[file] += len(block)
                self._read[file].append(block)
        return bool(ready)

    def close(self) -> list[str]:
        """Return the output of each pipe."""
        while self.wait(0) and self._open:
            pass
        for file in self._files:
            os.close(file)
        return [b"".join(self._read[file]).decode("utf-8", "replace") for file in self._files]


def _child(case: Case, folders: Folders, pipes: list[int]) -> None:
    """Be the command: prepare, run, and leave with its exit code."""
    code = UNPREPARED
    try:
        os.setsid()
        _forget_exits()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, pipe in enumerate(pipes[:2], start=1):
            os.dup2(pipe, number)
        # Whoever runs this may have put streams of its own in the place of Python's.
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
        os.environ |= {"FAULTS_RAN": str(folders.ran), "TMPDIR": str(folders.temporary)}
        tempfile.tempdir = None
        os.chdir(folders.work)
        warnings.simplefilter("ignore")
        for step in case.steps:
            apply(step, folders.work)
        with os.fdopen(pipes[2], "w") as told:
            json.dump(folders.tree(), told)
        if case.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (case.file_size, case.file_size))
        code = _run(case)
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        os._exit(code)


def _forget_exits() -> None:
    """Forget the clean-up of the process before the fork, such as removing its temporary folders."""
    atexit._clear()
    finalize: Any = weakref.finalize
    finalize._registry.clear()
    finalize._registered_with_atexit = False
    at_exit: Any = vars(multiprocessing.util)["_exit_function"]
    atexit.register(at_exit)


def _run(case: Case) -> int:
    """Run the command line or the code, and return its exit code. A traceback is printed as Python does."""
    warnings.resetwarnings()
    try:
        if case.verb == "python":
            _run_code(case.arguments[0])
        else:
            sys.argv = ["autoprune", *case.arguments]
            main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _run_code(code: str) -> None:
    """Run code as a script of the user's would that catches the package's own errors."""
    try:
        exec(compile(code, "script.py", "exec"), {"__name__": "__main__"})
    except AutopruneError as error:
        print(f"autoprune: {printable(str(error))}", file=sys.stderr)
        sys.exit(2)


def _wait(
    pid: int, streams: _Streams, seconds: float, memory_mib: float, own: float
) -> tuple[bool, float, int]:
    """Wait for a child. End it when its time is over, or when it takes far more memory than it may."""
    deadline = time.monotonic() + seconds
    hung = False
    peak = 0.0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return hung, max(peak, usage.ru_maxrss / 1024 - own), status
        peak = max(peak, _resident(str(pid)) - own)
        hung = hung or time.monotonic() > deadline
        if hung or peak > 4 * memory_mib:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        streams.wait(0.01)


def _resident(pid: str) -> float:
    """Return the resident MiB of a process, or 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / _MIB
    except (OSError, IndexError):
        return 0.0


def _differences(before: Tree, after: Tree) -> dict[str, str]:
    paths = sorted({*before, *after})
    words = {(True, False): "removed", (False, True): "made", (True, True): "changed"}
    return {
        path: words[path in before, path in after] for path in paths if before.get(path) != after.get(path)
    }


def run_command(words: list[str], folder: Path) -> tuple[int, str]:
    """Run a command line in a forked child (Python code, if it is one word). Return its code and output."""
    verb = "python" if len(words) == 1 else words[0]
    case = Case(id=verb, kind="", verb=verb, arguments=tuple(words))
    outcome = run_case(case, Folders(folder.parent), Limits(seconds=300.0))
    return outcome.code, outcome.output + outcome.errors
