"""The processes that work on a study, each with its phase, for those who watch from outside.

Leases of trials alone would not do: a search also measures, races and reports, and it holds no trial then.

Example:
    with at_work(study) as enter:
        enter("race")
    processes(study)[0].phase       # "race" for as long as the block runs
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from autoprune.errors import StudyError
from autoprune.study._search_study import SearchStudy
from autoprune.support.leases import Lease, is_alive, this_process

PROCESS = "autoprune:process:"
"""The start of the keys of these notes."""

ENDED = "ended"
"""The phase of a process that has done all that the search needs."""


@dataclass(frozen=True)
class Process:
    """A process that works on a study.

    Attributes:
        lease: identifies the process.
        phase: what it does, such as "trials" or "race", or ENDED.
        since: when the phase began, in seconds of `time.time`.
    """

    lease: Lease
    phase: str
    since: float

    @property
    def is_alive(self) -> bool | None:
        """Whether the process lives, or None if it is on another host and cannot be seen from here."""
        return is_alive(self.lease)


@contextlib.contextmanager
def at_work(study: SearchStudy) -> Iterator[Callable[[str], None]]:
    """Note inside the block that this process works on a study.

    Yields:
        A function that notes the phase which begins now.
    """
    own = this_process()

    def store(lease: Lease, values: Any) -> None:
        # Only watchers read these notes, so a storage that cannot be written must not stop a search here.
        with contextlib.suppress(StudyError):
            study.store_note(_key(lease), values)

    def enter(phase: str) -> None:
        store(own, {**own.to_json(), "phase": phase, "since": time.time()})

    for known in processes(study):
        if known.phase == ENDED or known.is_alive is False:
            store(known.lease, None)
    enter("preparation")
    try:
        yield enter
    except BaseException:
        store(own, None)
        raise
    if study.unended():  # another process goes on, and may be killed
        store(own, None)
    else:
        enter(ENDED)


def processes(study: SearchStudy) -> list[Process]:
    """Return the processes that work on a study, have ended a search of it, or were killed."""
    found = (_read(study.note(key)) for key in study.noted(PROCESS))
    return [process for process in found if process is not None]


def _key(lease: Lease) -> str:
    return f"{PROCESS}{lease.host}:{lease.pid}"


def _read(values: Any) -> Process | None:
    """Read a note. One that is malformed, as in a received study, counts as none."""
    lease = Lease.from_json(values)
    try:
        return None if lease is None else Process(lease, str(values["phase"]), float(values["since"]))
    except (KeyError, TypeError, ValueError):
        return None
