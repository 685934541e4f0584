"""Writes a file whole or not at all: under another name first, then in the place of the old one.

Before: whoever has something to keep (weights, tables, recipes, states); after: a reader, at any moment, also
after a kill or on a full disk, finds the former file or the new one. Callers turn OSError into an error of
their own, or take `saving`, which does.

    with replacing(Path("table.json")) as partial:
        partial.write_text(text)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from autoprune.errors import CheckpointError, reason_of


@contextlib.contextmanager
def replacing(path: Path, *, suffix: str = "") -> Iterator[Path]:
    """Give the path of an empty file to write to; it takes the place of `path` when the block ends well.

    It lies beside `path`, in a folder made where it is missing, under a name that no other process uses.
    Where the block fails, it is removed and `path` stays as it was.

    Args:
        path: the file to write or to replace.
        suffix: how the other name ends, for writers that look at it.

    Raises:
        OSError: the folder cannot be made or written, or the file does not reach the disk.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.part{suffix}")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.touch()
        yield partial
        with partial.open("r+b") as file:  # Windows syncs no file that is opened for reading alone
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def saving(path: Path, what: str) -> Iterator[Path]:
    """Give the path to write to as `replacing` does, for what a command needs when it is given again.

    Args:
        path: the file to write or to replace.
        what: the user's word for what it holds.

    Raises:
        CheckpointError: it cannot be written.
    """
    try:
        with replacing(path) as partial:
            yield partial
    except OSError as error:
        raise CheckpointError(
            f"{what} {path}: cannot be written ({reason_of(error)}); make room for it, then give the same "
            "command again."
        ) from error
