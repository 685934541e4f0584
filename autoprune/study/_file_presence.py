"""Notices that the file of a storage was deleted, replaced or cut short while a process works with it.

An open SQLite connection goes on writing to a deleted file, and everything that it writes is lost.

Example:
    presence = Presence(Path("runs/fm.db"), "sqlite:///runs/fm.db")
    presence.check()        # before each access to the storage
"""

from __future__ import annotations

import os
from pathlib import Path

from autoprune.errors import StudyError


class Presence:
    """The identity and size of a storage's file when it was opened."""

    def __init__(self, path: Path, shown: str) -> None:
        """Remember which file it is.

        Args:
            path: of an existing file.
            shown: the storage's URL as messages show it.

        Raises:
            OSError: there is no such file, or it cannot be looked at.
        """
        found = os.stat(path)
        self._path, self._shown = path, shown
        self._file = (found.st_dev, found.st_ino)
        self._size = 0

    def check(self) -> None:
        """Require the same file to be still there.

        Raises:
            StudyError: it was deleted, replaced, or cut short.
        """
        try:
            found = os.stat(self._path)
        except FileNotFoundError:
            raise self._lost("it was deleted or moved") from None
        if (found.st_dev, found.st_ino) != self._file:
            raise self._lost("another file has taken its place")
        if found.st_size < self._size:
            raise self._lost(f"it was cut from {self._size:,} to {found.st_size:,} bytes")

    def require(self, size: int) -> None:
        """Require at least this number of bytes from now on."""
        self._size = max(self._size, size)

    def grow(self) -> None:
        """Require at least the present size from now on. The file of a database never shrinks by itself."""
        self.require(os.stat(self._path).st_size)

    def _lost(self, event: str) -> StudyError:
        return StudyError(
            f"{self._shown}: {event} while it was in use, so nothing more can be stored. Put the former file "
            "back, then resume the search, or begin another."
        )
