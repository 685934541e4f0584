"""Leases: which process holds a trial or a folder, and whether this process still lives.

Example:
    lease = this_process()                 # Lease(host="box", pid=4711, started="5f3c...:81234", claim="9d")
    is_alive(lease)                        # True, False, or None if it is of another host

    with locked(folder / "flow.lock", "flow"):
        ...                                # no other process runs the flow of this folder

`SearchStudy.ask` stores a lease with every trial. A resume re-queues the trials of dead processes.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoprune.errors import StudyError, reason_of
from autoprune.support.atomic import replacing
from autoprune.support.files import read_json

CLAIM_S = 0.3
"""Seconds to wait for a claim. It usually takes less from taking a trial or a file to writing the lease.

If a claim of a trial takes longer, the trial may be queued again. One of the two attempts is dropped then.
"""

_UNKNOWN = "unknown"


class TakenOverError(StudyError):
    """Another process has taken over the trial. Whatever this process reports of it does not count."""


@dataclass(frozen=True)
class Lease:
    """The process that runs a trial. Two leases of one process are equal, even if their claims differ.

    Attributes:
        host: name of the machine.
        pid: number of the process on this machine.
        started: identifies the start of the process: the boot of the machine, and the time since then.
        claim: identifies one claim of one trial. Empty in leases of earlier versions.
    """

    host: str
    pid: int
    started: str
    claim: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the values that the storage keeps."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Lease | None:
        """Read a lease, or None if there is none, or if it is malformed."""
        try:
            return cls(
                host=str(values["host"]),
                pid=int(values["pid"]),
                started=str(values["started"]),
                claim=str(values.get("claim", "")),
            )
        except (KeyError, TypeError, ValueError):
            return None


def this_process() -> Lease:
    """Return the lease of the calling process, for one claim of a trial."""
    pid = os.getpid()
    return Lease(socket.gethostname(), pid, _started(pid) or _UNKNOWN, uuid.uuid4().hex)


def is_alive(lease: Lease | None) -> bool | None:
    """Return whether the process of a lease lives, or None if it runs on another host, and cannot be seen."""
    if lease is None:
        return False  # a trial of a live process has a lease, since both are created in one step
    if lease.host != socket.gethostname():
        return None
    started = _started(lease.pid)
    if started is None:
        return False
    # The system gives the number of a dead process to a new one. The start time distinguishes them.
    return _UNKNOWN in (started, lease.started) or started == lease.started


@contextlib.contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a file with the lease of this process within the block. The file of a dead process is replaced.

    Args:
        path: the file, whose folder is made if it is missing. After the block it is removed if it is empty,
            and so are the folders around it that were made.
        what: the name of the work that one process at a time may do, for messages.

    Raises:
        StudyError: another process holds the file, or it cannot be written.
    """
    own = this_process()
    made = [folder for folder in path.absolute().parents if not folder.exists()]
    try:
        _take(path, what, own)
        yield
    finally:  # also after Ctrl-C while the claim is waited for
        found = _holder(path)
        if found is not None and found.claim == own.claim:
            with contextlib.suppress(OSError):
                path.unlink()
                for folder in (path.parent, *made[1:]):
                    folder.rmdir()  # a folder that is not empty stays, and those around it


def require_unlocked(path: Path, what: str, own: Lease | None = None) -> None:
    """Refuse a file that a process other than `own` holds.

    Raises:
        StudyError: another process holds it. The message names the process and what to do.
    """
    if not path.exists():
        return
    held = _holder(path)
    if held is None:  # its writer has just created it, or was killed at this moment
        time.sleep(CLAIM_S)
        held = _holder(path)
    alive = is_alive(held)
    if held is None or alive is False or (own is not None and held.claim == own.claim):
        return
    process = f"process {held.pid} on {held.host}"
    raise StudyError(
        f"{path.parent}: {process} runs this {what}. Wait for it or end it, then run the same command again."
        if alive
        else f"{path.parent}: {process} may still run this {what}. If it is gone, remove {path}."
    )


def _take(path: Path, what: str, own: Lease) -> None:
    """Write a lease into a file that no other process holds."""
    try:
        if not _created(path, own):
            require_unlocked(path, what)
            with replacing(path) as partial:  # two processes may both find the last holder dead
                partial.write_text(json.dumps(own.to_json()), "utf-8")
            time.sleep(CLAIM_S)
        require_unlocked(path, what, own)  # another process may have seen the new file before its lease
    except OSError as error:
        raise StudyError(
            f"{path}: cannot be written ({reason_of(error)}). Choose another place, then run the same "
            "command again."
        ) from error


def _created(path: Path, lease: Lease) -> bool:
    """Create a file with a lease, and return whether it did not exist."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(lease.to_json()))
    except FileExistsError:
        return False
    return True


def _holder(path: Path) -> Lease | None:
    try:
        return Lease.from_json(read_json(path))
    except (OSError, ValueError):
        return None


def _started(pid: int) -> str | None:
    """Return an identifier of a process's start, None if it does not run, or "unknown"."""
    if Path("/proc/self/stat").exists():
        try:
            # The second field is the program's name in parentheses, and may hold spaces and parentheses.
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return None
        is_zombie = fields[0] in "ZX"  # it has ended, but its parent has not read its exit code
        return None if is_zombie else f"{_boot()}:{fields[19]}"  # field 22 of the line: the start time
    return _started_by_ps(pid)


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return _UNKNOWN


def _started_by_ps(pid: int) -> str | None:
    """Ask `ps`, which macOS and the BSDs have. Without it, every process of this host counts as alive."""
    try:
        answer = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return _UNKNOWN
    return answer.stdout.strip() or None
