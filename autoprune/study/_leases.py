"""Own the lease on a running trial: which process holds it, and whether that process still lives.

Before: `SearchStudy.ask` writes one with every trial; after: a resume re-queues the trials of dead processes.

    lease = this_process()                 # Lease(host="box", pid=4711, started="5f3c...:81234", claim="9d")
    is_alive(lease)                        # True; None where it is of another host and cannot be known

A process is told from a later one with the same number by its start time, counted since a named boot.
"""

from __future__ import annotations

import functools
import os
import socket
import subprocess
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from autoprune.errors import StudyError

_UNKNOWN = "unknown"


class TakenOverError(StudyError):
    """A trial is another process's by now: what this one still has to say of it does not count."""


@dataclass(frozen=True)
class Lease:
    """Who runs a trial: leases of one process are equal, whatever their claims.

    Attributes:
        host: name of the machine.
        pid: number of the process there.
        started: what identifies the start of that process.
        claim: which time a trial was taken; no two are the same. Empty in leases of earlier versions.
    """

    host: str
    pid: int
    started: str
    claim: str = field(default="", compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the lease as the storage keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Any) -> Lease | None:
        """Read a lease back; None where there is none or it is malformed."""
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
    """Tell whether the process that holds a lease lives; None where it is of another host.

    No lease at all counts as dead: trials are created together with theirs.
    """
    if lease is None:
        return False
    if lease.host != socket.gethostname():
        return None
    started = _started(lease.pid)
    if started is None:
        return False
    return _UNKNOWN in (started, lease.started) or started == lease.started


def _started(pid: int) -> str | None:
    """Return what identifies a process's start; None where it does not run, "unknown" where none can say."""
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        except OSError:
            return None
        zombie = fields[0] in "ZX"
        return None if zombie else f"{_boot()}:{fields[19]}"
    return _started_by_ps(pid)


@functools.cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
    except OSError:
        return _UNKNOWN


def _started_by_ps(pid: int) -> str | None:
    """Ask `ps`, which macOS and the BSDs have; without it a lease is trusted for ever."""
    try:
        answer = subprocess.run(
            ["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return _UNKNOWN
    return answer.stdout.strip() or None
