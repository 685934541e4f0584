"""Notes: JSON values that are stored with a study, under keys.

Example:
    study.store_note("autoprune:race", {"winner": 3})
    study.note("autoprune:race")
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

import optuna

from autoprune.study._long_values import read_note, write_value
from autoprune.study._storage_errors import storage_errors
from autoprune.support.leases import CLAIM_S, Lease, is_alive, this_process


class NotedStudy:
    """An Optuna study with notes.

    Attributes:
        url: URL of the storage.
        name: name of the study in it.
        optuna: the Optuna study.
    """

    def __init__(self, url: str, study: optuna.Study) -> None:
        self.url = url
        self.name = study.study_name
        self.optuna = study

    def storage_errors(self) -> AbstractContextManager[None]:
        """Return a context that turns any error of the storage into a StudyError of one line."""
        return storage_errors(self.url)

    def store_note(self, key: str, value: Any) -> None:
        """Store a JSON value with the study, under a key."""
        with storage_errors(self.url):
            write_value(self.optuna, key, json.dumps(value))

    def store_note_once(self, key: str, value: Any) -> Any:
        """Store a JSON value unless the key has one, and return the value that counts for all processes.

        Looking and writing are two steps. If several processes look before any of them writes, the last
        write counts, and each process waits for it before it reads the value back. A process that takes
        longer than this wait between its two steps replaces a value that others use already.
        """
        if self.note(key) is None:
            self.store_note(key, value)
        time.sleep(CLAIM_S)
        return self.note(key)

    @contextlib.contextmanager
    def claimed(self, key: str, *, take_over: bool) -> Iterator[Lease | None]:
        """Hold a note with the lease of this process within the block.

        Args:
            key: the key of the note.
            take_over: whether to claim it from a process of another host, which cannot be seen.

        Yields:
            None, or the lease of another process that holds it.
        """
        held = Lease.from_json(self.note(key))
        alive = is_alive(held)
        if alive or (alive is None and not take_over):
            yield held
            return
        own = this_process()
        # The last lease written counts: see `store_note_once`.
        self.store_note(key, own.to_json())
        try:
            time.sleep(CLAIM_S)
            found = Lease.from_json(self.note(key))
            yield found if found is not None and found.claim != own.claim else None
        finally:
            found = Lease.from_json(self.note(key))
            if found is None or found.claim == own.claim:
                self.store_note(key, None)

    def note(self, key: str) -> Any:
        """Return the value that was stored under a key, or None if there is none.

        Raises:
            StudyError: it is long, and a part of it is damaged.
        """
        with storage_errors(self.url):
            return read_note(self.optuna.user_attrs, key, self.name)

    def noted(self, prefix: str) -> list[str]:
        """Return the keys of all notes that begin with a prefix."""
        with storage_errors(self.url):
            return [key for key in self.optuna.user_attrs if key.startswith(prefix)]
