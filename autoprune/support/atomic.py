"""Writes a file whole or not at all: under another name first, then in the place of the old one.

A reader, at any moment, also after a kill or on a full disk, finds the former file or the new one. Callers
turn OSError into an error of their own, or take `saving`, which does.

    with replacing(Path("table.json")) as partial:
        partial.write_text(text)
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import os
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from autoprune.errors import AutopruneError, CheckpointError, reason_of
from autoprune.support.files import require_regular

ABANDONED_S = 24 * 3600.0
"""Age from which a partial file of another host, whose writer cannot be seen, counts as abandoned."""

_PARTIAL = re.compile(r"\..+\.(?:([0-9a-f]{8})-)?(\d+)\.part(?:\.\w+)?")
"""Name of a partial file: its writer's host, which earlier versions left out, and its process."""


@contextlib.contextmanager
def replacing(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Give the path of an empty file to write to; it takes the place of `path` when the block ends well.

    It lies beside `path`, in a folder made if it is missing, under a name that no other process uses. If the
    block fails, it is removed and `path` stays as it was. Files that killed processes left there are removed.

    Args:
        path: the file to write or to replace.
        suffix: how the other name ends, for writers that look at it.

    Raises:
        OSError: the folder cannot be made or written, the file does not reach the disk, or `path` leads to a
            device, a named pipe or a folder, whose place it would take.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name holds a null character")
    with contextlib.suppress(FileNotFoundError):
        require_regular(path)
    partial = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.part{suffix}")
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    try:
        _create(partial)
        yield partial
        with partial.open("r+b") as file:  # Windows syncs no file that is opened for reading alone
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # it stays if anything is in it
                path.parent.rmdir()


def _create(partial: Path) -> None:
    """Make an empty file, never through a link: whoever shares the folder may have put one there."""
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


@contextlib.contextmanager
def saving(path: Path, what: str, error: type[AutopruneError] = CheckpointError) -> Iterator[Path]:
    """Give the path to write to as `replacing` does.

    Args:
        path: the file to write or to replace.
        what: the user's word for what it holds.
        error: raised, in one line, if the file cannot be written.
    """
    try:
        with replacing(path) as partial:
            yield partial
    except OSError as problem:
        raise error(
            f"{what} {path}: cannot be written ({reason_of(problem)}); make room or choose another place, "
            "then give the same command again."
        ) from problem


def _remove_abandoned(folder: Path) -> None:
    """Remove the partial files in a folder whose writers are gone."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _PARTIAL.fullmatch(entry.name)
            if match and entry.is_file(follow_symlinks=False) and _is_abandoned(entry, *match.groups()):
                os.unlink(entry.path)


def _is_abandoned(entry: os.DirEntry[str], host: str | None, pid: str) -> bool:
    if host == _host() and os.name == "posix":
        return not _is_alive(int(pid))
    return time.time() - entry.stat(follow_symlinks=False).st_mtime > ABANDONED_S


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # the process is another user's
        return True
    return True


@functools.cache
def _host() -> str:
    """Name the scope in which process numbers are unique: a boot of a machine, and a container on it."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8"))
    with contextlib.suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:8]
