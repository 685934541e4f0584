"""Write files atomically: first under another name, then in place of the old file.

A reader finds either the old file or the new one at any moment, even after a kill or on a full disk.

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
"""Age in seconds at which a partial file of another host counts as abandoned. Its writer is not visible."""

_PARTIAL = re.compile(r"\..+\.(?:([0-9a-f]{8})-)?(\d+)\.part(?:\.\w+)?")
"""The name of a partial file, with the writer's host (missing in earlier versions) and process number."""


@contextlib.contextmanager
def replacing(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Yield the path of an empty file that replaces `path` if the block succeeds.

    The file is in the folder of `path`, which is made if it is missing. No other process uses its name. If
    the block fails, the file is removed and `path` does not change. Partial files of killed processes are
    removed too.

    Args:
        path: the file to write or to replace.
        suffix: suffix of the other name, for writers that depend on it.

    Raises:
        OSError: if the folder or the file cannot be written, or `path` is a device, a named pipe or a folder.
    """
    if "\0" in str(path):
        raise OSError(errno.EINVAL, "its name contains a null character")
    with contextlib.suppress(FileNotFoundError):
        require_regular(path)
    partial = path.with_name(f".{path.name}.{_host()}-{os.getpid()}.part{suffix}")
    is_new = not path.parent.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path.parent)
    try:
        _create(partial)
        yield partial
        # Without fsync, a power failure after the rename may leave an empty file. Windows needs write access.
        with partial.open("r+b") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)
        if is_new:
            with contextlib.suppress(OSError):  # a folder that is not empty stays
                path.parent.rmdir()


def _create(partial: Path) -> None:
    """Make an empty file. Never follow a link, which another user of the folder may have put there."""
    partial.unlink(missing_ok=True)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))


@contextlib.contextmanager
def saving(path: Path, what: str, error: type[AutopruneError] = CheckpointError) -> Iterator[Path]:
    """Yield a path as `replacing` does, and turn an OSError into an error of one line.

    Args:
        path: the file to write or to replace.
        what: the name of the content in messages ("training state").
        error: class of the error to raise if the file cannot be written.
    """
    try:
        with replacing(path) as partial:
            yield partial
    except OSError as problem:
        raise error(
            f"{what} {path}: cannot be written ({reason_of(problem)}). Free some space or choose another "
            "place, then run the same command again."
        ) from problem


def _remove_abandoned(folder: Path) -> None:
    """Remove the partial files in a folder whose writers have ended."""
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
    except OSError:  # no permission: the process exists and belongs to another user
        return True
    return True


@functools.cache
def _host() -> str:
    """Return a hash of the scope in which process numbers are unique: machine, boot and container."""
    facts = [socket.gethostname()]
    with contextlib.suppress(OSError):
        facts.append(Path("/proc/sys/kernel/random/boot_id").read_text("utf-8"))
    with contextlib.suppress(OSError):
        facts.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.sha256("|".join(facts).encode()).hexdigest()[:8]
