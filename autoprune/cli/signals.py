"""Ctrl-C and SIGTERM as exceptions that unwind a command, so that its trials are queued again.

Before: `cli.main`; after: every command runs inside.

    with caught_signals() as caught:
        app()                        # raises KeyboardInterrupt, or Terminated, which is one
    caught                           # [130] after a Ctrl-C, [143] after SIGTERM
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM arrived: unwinds like Ctrl-C."""


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on Ctrl-C, Terminated on SIGTERM; yield the exit codes of those that came."""
    caught: list[int] = []
    owner = os.getpid()

    def unwind(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a forked child is no command of its own
            os._exit(128 + number)
        caught.append(128 + number)
        raise Terminated if number == signal.SIGTERM else KeyboardInterrupt

    before = {number: signal.signal(number, unwind) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
