"""Read files from unknown sources safely: only regular files, of limited size, without blocking.

A named pipe would block its reader forever, and /dev/zero would fill the memory.

    values = read_json("dense.json")
    require_regular("dense.safetensors")      # before a library opens the file by its path
"""

from __future__ import annotations

import errno
import json
import os
import stat
from io import BufferedReader, TextIOWrapper
from typing import Any

MOST_BYTES = 2**26
"""Maximum size of a text file, 64 MB. The largest latency tables are far smaller."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_regular(path: str | os.PathLike[str]) -> None:
    """Refuse a path that is not a regular file. Links are followed.

    Raises:
        OSError: if the file does not exist, or is a folder, a named pipe, a socket or a device.
    """
    _refuse_special(os.stat(path).st_mode, path)


def open_regular(path: str | os.PathLike[str]) -> BufferedReader:
    """Open a regular file for reading in binary mode.

    Raises:
        OSError: if it cannot be opened or is not a regular file.
    """
    require_regular(path)
    file = open(path, "rb", opener=_without_waiting)  # noqa: SIM115  # the caller closes it
    try:
        # Another process may have replaced the file between the check and the opening.
        _refuse_special(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def open_appending(path: str | os.PathLike[str]) -> TextIOWrapper:
    """Open a regular file to read it and to append text in UTF-8. It is made if it is missing.

    Raises:
        OSError: if it cannot be opened, or is a link or no regular file.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        number = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise OSError(errno.ELOOP, "it is a link, expected a regular file", os.fspath(path)) from None
    file = open(number, "a+", encoding="utf-8", errors="replace")  # noqa: SIM115  # the caller closes it
    try:
        _refuse_special(os.fstat(number).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def read_text(path: str | os.PathLike[str], *, most_bytes: int | None = None) -> str:
    """Read a text file in UTF-8.

    Args:
        path: the file.
        most_bytes: maximum size in bytes, or None for `MOST_BYTES`.

    Raises:
        OSError: if the file cannot be read, is not a regular file, or is too large.
        ValueError: if it is not UTF-8.
    """
    most = MOST_BYTES if most_bytes is None else most_bytes
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most >> 20} MB", os.fspath(path))
    return content.decode("utf-8")


def read_json(path: str | os.PathLike[str], **hooks: Any) -> Any:
    """Read a JSON file.

    Args:
        path: the file.
        hooks: keyword arguments of `json.loads`.

    Raises:
        OSError: if the file cannot be read, is not a regular file, or is too large.
        ValueError: if it is not JSON, or its lists and objects are nested too deep.
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
