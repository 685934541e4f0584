"""Passes events to a tracker in a thread, once each, so that a slow or broken tracker stops no search.

A file in the output folder lists the events that were logged. So a verb that goes on with a study, or that
was killed, logs the rest and doubles nothing.

Example:
    with Tracking("mlflow", MLflow, opened, warn) as tracking:
        tracking.log(TrialEnded(...))
"""

from __future__ import annotations

import contextlib
import fcntl
import queue
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from autoprune.errors import summary_of
from autoprune.support.files import open_appending
from autoprune.trackers._events import Logged, StudyClosed, StudyOpened, Tracker

WAIT_S, INTERRUPTED_WAIT_S = 60.0, 5.0
"""Seconds that the end of a verb waits for a tracker, after success and after an error or Ctrl-C."""


class Tracking:
    """One tracker at work.

    Args:
        name: of the tracker, in warnings and in the name of its file.
        make: makes the tracker, in its thread.
        opened: the first event.
        warn: called with at most one warning, in the thread that uses this object.
        wait_s: seconds that the end waits for the tracker.
    """

    def __init__(
        self,
        name: str,
        make: Callable[[], Tracker],
        opened: StudyOpened,
        warn: Callable[[str], None],
        *,
        wait_s: float = WAIT_S,
    ) -> None:
        self._name = name
        self._make = make
        self._warn = warn
        self._wait_s = wait_s
        self._failure: str | None = None
        self._events: queue.SimpleQueue[tuple[str, Logged] | None] = queue.SimpleQueue()
        self._ledger = _Ledger(opened.folder / "trackers" / f"{_file_name(name)}-{opened.run[:8]}.log")
        self._queued: set[str] = set()
        self._opened = opened
        self._thread = threading.Thread(target=self._run, name=f"tracker {name}", daemon=True)

    def __enter__(self) -> Tracking:
        """Start the tracker."""
        self._thread.start()
        return self

    def log(self, event: Logged) -> None:
        """Queue an event unless it was logged before. It costs no time."""
        self._report()
        with contextlib.suppress(OSError):  # the file of the event is gone
            key = " ".join(event.key.splitlines())
            if key not in self._queued:
                self._queued.add(key)
                self._events.put((key, event))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait until all events are logged, but no longer than the time limit."""
        self._events.put(None)
        self._thread.join(self._wait_s if kind is None else min(self._wait_s, INTERRUPTED_WAIT_S))
        if self._thread.is_alive() and self._failure is None:
            self._failure = "it has not logged all events in time"
        self._report()

    def _report(self) -> None:
        """Warn once if the tracker has failed."""
        if self._failure:
            self._warn(
                f"warning: tracker {self._name} stopped: {self._failure}. The next command on this study "
                "logs the rest"
            )
            self._failure = ""

    def _run(self) -> None:
        try:
            with self._ledger as logged:
                tracker = self._make()
                tracker(replace(self._opened, is_new=not logged))
                while (queued := self._events.get()) is not None:
                    key, event = queued
                    if key not in logged:
                        tracker(event)
                        self._ledger.add(key)
                tracker(StudyClosed())
        except BaseException as error:  # whatever a tracker raises, `sys.exit` included
            self._failure = summary_of(error)


class _Ledger:
    """The file of the keys that were logged, one a line. One process at a time may hold it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> set[str]:
        """Lock the file, and return its keys. Only then can no other process add any.

        Raises:
            OSError: another process holds it, or it cannot be opened.
        """
        folder = self._path.parent
        if folder.is_symlink():  # in a received output folder
            raise OSError(f"{folder} is a link, expected a folder")
        folder.mkdir(parents=True, exist_ok=True)
        self._file = open_appending(self._path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise OSError("another process logs this study") from None
        self._file.seek(0)
        return set(self._file.read().splitlines())

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, key: str) -> None:
        self._file.write(f"{key}\n")
        self._file.flush()


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)
