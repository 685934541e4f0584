"""A journal storage in a file that survives a full disk, kill -9 and a stale lock.

Example:
    storage = JournalStorage(Journal(Path("runs/fm.log"), "journal:///runs/fm.log"))

A journal has a line of JSON for each operation. A writer that is killed may leave a torn last line. Optuna's
own backend appends to it, and no reader gets past the resulting line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Generator, Iterator, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from autoprune.errors import StudyError
from autoprune.study._file_presence import Presence
from autoprune.support.files import open_regular

LOCK_GRACE_S = 30.0
"""Seconds after which a process that holds the lock counts as dead. A live one needs milliseconds."""

_HEAD = b'{"op_code":'
"""The first bytes of each operation."""

_BLOCK = 2**16
_LONGEST_WAIT_S = 0.1

_log = logging.getLogger(__name__)


class Journal(JournalFileBackend):
    """Optuna's journal file, whose last line is made whole before anything is appended."""

    def __init__(self, path: Path, shown: str) -> None:
        """Open the journal of an existing file.

        Args:
            path: of the file.
            shown: the storage's URL as messages show it.

        Raises:
            OSError: it is no regular file, or cannot be read.
        """
        path = path.absolute()
        open_regular(path).close()
        super().__init__(str(path), _Lock(str(path)))
        self._shown = shown
        self._offsets = {0: 0}  # number of operations -> bytes of their lines
        self._presence = Presence(path, shown)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the operations from a number on. A torn last line is skipped.

        Raises:
            StudyError: the file is not the one that was opened, or one of its lines is damaged.
        """
        self._presence.check()
        number = log_number_from if log_number_from in self._offsets else 0
        place, damaged = self._offsets[number], False
        with open(self._file_path, "rb") as file:
            # Operations that others append from now on are read the next time.
            size = os.fstat(file.fileno()).st_size
            file.seek(place)
            for line in file:
                place += len(line)
                if place > size:
                    break
                operation = _operation(line)
                if damaged or (operation is None and not _is_torn(line)):
                    raise StudyError(
                        f"{self._shown}: not a journal of Optuna's, or a damaged one: line {number + 1} is "
                        "no operation. Restore the file from a copy, or name another storage."
                    )
                damaged = operation is None
                if operation is not None:
                    number += 1
                    self._offsets[number] = place
                    # Only the part that was read: the next writer cuts off a torn line behind it.
                    self._presence.require(place)
                    if number > log_number_from:
                        yield operation

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Repair the end of the file, then write all operations or none.

        Raises:
            StudyError: the file is not the one that was opened.
            OSError: it cannot be written.
        """
        with self._locked():
            self._presence.check()
            descriptor = os.open(self._file_path, os.O_RDWR | os.O_APPEND)
            with open(descriptor, "r+b", buffering=0) as file:
                _append(file, _mend_end(file), logs)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self._lock.acquire()
        try:
            yield
        finally:
            try:
                self._lock.release()
            except RuntimeError:  # this process held the lock so long that another one took it for dead
                _log.warning("%s: its lock was released by another process", self._file_path)


class _Lock(JournalFileSymlinkLock):
    """Optuna's lock, a symbolic link next to the journal, that always expires.

    Optuna's own lock waits for ever if the link is broken. A link to a relative path is, in another folder.
    """

    def acquire(self) -> bool:
        """Wait for the lock, and take it. A holder that counts as dead loses it."""
        seen, since, wait_s = None, time.monotonic(), 0.001
        while True:
            with contextlib.suppress(FileExistsError):
                os.symlink(self._lock_target_file, self._lock_file)
                return True
            holder = _holder_of(self._lock_file)
            if holder != seen:
                seen, since = holder, time.monotonic()
            elif time.monotonic() - since > LOCK_GRACE_S:
                _log.warning("%s: a process that died holds it. It is released", self._lock_file)
                with contextlib.suppress(RuntimeError):  # another process was faster
                    self.release()
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _holder_of(lock: str) -> tuple[int, int] | None:
    """Return values that differ between two holders of the lock, or None if nobody holds it."""
    try:
        link = os.lstat(lock)
    except FileNotFoundError:
        return None
    return link.st_ino, link.st_mtime_ns


def _append(file: FileIO, end: int, logs: Sequence[dict[str, Any]]) -> None:
    """Write lines at the end. If the disk is full, remove the part that was written."""
    left = memoryview("".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode())
    try:
        while left:
            left = left[file.write(left) :]
    except BaseException:
        file.truncate(end)
        raise
    os.fsync(file.fileno())


def _mend_end(file: FileIO) -> int:
    """Remove a torn last line, or end a last line that lacks only its line end. Return the file's size.

    The caller holds the lock, so that nobody is writing this line.
    """
    size = file.seek(0, os.SEEK_END)
    start, line = _last_line(file, size)
    if not line or _operation(line) is not None:
        return size
    if not _is_torn(line):  # it is no journal, and the next reader refuses it
        return size
    if _operation(line + b"\n") is not None:
        file.write(b"\n")
        return size + 1
    _log.warning("a torn last line, left by a writer that died, is cut off the journal")
    file.truncate(start)
    return start


def _last_line(file: FileIO, size: int) -> tuple[int, bytes]:
    """Return the start of the last line, and the line with its line end, if it has one."""
    start, tail = size, b""
    while start > 0 and b"\n" not in tail[:-1]:
        start = max(0, start - _BLOCK)
        file.seek(start)
        tail = file.read(size - start)
    line = tail[tail.rfind(b"\n", 0, len(tail) - 1) + 1 :]
    return size - len(line), line


def _operation(line: bytes) -> dict[str, Any] | None:
    """Return the operation of a line, or None if the line is torn or is no operation."""
    if not line.endswith(b"\n"):
        return None
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) and "op_code" in values else None


def _is_torn(line: bytes) -> bool:
    """Return whether a line is the beginning of an operation, or zeros, as after a power failure."""
    head = line.rstrip(b"\x00\n")[: len(_HEAD)]
    return _HEAD.startswith(head)
