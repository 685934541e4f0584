"""Reads files that others wrote: only regular ones, of a bounded size, and without ever waiting for a writer.

A FIFO or a terminal would make a reader wait for ever, and /dev/zero would fill its memory.

    values = read_json("dense.json")
    require_regular("dense.safetensors")      # before a library opens the file by its path
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader
from typing import Any

MOST_BYTES = 2**26
"""Size of a text file that is read whole: 64 MB, far above the largest latency table."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that leads to anything but a regular file. Links are followed.

    Raises:
        OSError: there is no such file, or it is a folder, a named pipe, a socket or a device.
    """
    _refuse_special(os.stat(path).st_mode, path)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading in binary.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    require_regular(path)
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    try:
        # Another file may have taken the place of the one that was looked at.
        _refuse_special(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def read_text(path: str | os.PathLike[str], *, most_bytes: int | None = None) -> str:
    """Read a text file in UTF-8.

    Args:
        path: the file.
        most_bytes: its largest size; None for `MOST_BYTES`.

    Raises:
        OSError: it cannot be read, is no regular file, or is larger than that.
        ValueError: it is not UTF-8.
    """
    most = MOST_BYTES if most_bytes is None else most_bytes
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most >> 20} MB", os.fspath(path))
    return content.decode("utf-8")


def read_json(path: str | os.PathLike[str], **hooks: Any) -> Any:
    """Read a file of JSON.

    Args:
        path: of the file.
        hooks: keyword arguments of `json.loads`.

    Raises:
        OSError: as for `read_text`.
        ValueError: it is no JSON, or lists and objects are nested too deep in it.
    """
    try:
        return json.loads(read_text(path), **hooks)
    except RecursionError:
        raise ValueError("lists and objects are nested too deep in it") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _refuse_special(mode: int, path: str | os.PathLike[str]) -> None:
    if not stat.S_ISREG(mode):
        kind = _KINDS.get(stat.S_IFMT(mode), "no file")
        raise OSError(errno.EINVAL, f"it is {kind}, expected a regular file", os.fspath(path))
