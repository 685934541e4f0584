"""Ctrl-C, SIGTERM and SIGHUP as exceptions that unwind a command, so that its trials are queued again.

Every command runs inside:

    with caught_signals() as caught:
        app()                        # raises KeyboardInterrupt, or Terminated, which is one
    caught                           # [130] after a Ctrl-C, [143] after SIGTERM, [129] after SIGHUP
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

GRACE_S = 5.0
"""So long after a signal others are ignored: an impatient second Ctrl-C would break off the unwinding."""

_ENDING = {
    getattr(signal, name): word
    for name, word in (("SIGINT", "Interrupted"), ("SIGTERM", "Terminated"), ("SIGHUP", "Hung up"))
    if hasattr(signal, name)  # Windows has no SIGHUP
}
"""Signal -> the word for a command that it ended."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived: unwinds like Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def ended_by(interrupt: KeyboardInterrupt) -> tuple[str, int]:
    """Return the word for the end of a command by a signal, and its exit code."""
    number = interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT
    return _ENDING[number], 128 + number


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on Ctrl-C, Terminated on other signals, and yield the exit codes of all so far.

    A SIGHUP that is ignored already, as under nohup, stays ignored.
    """
    caught: list[int] = []
    owner = os.getpid()
    last = -GRACE_S

    def unwind(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != owner:  # a forked child is no command of its own
            os._exit(128 + number)
        now = time.monotonic()
        if caught and now - last < GRACE_S:
            return
        caught.append(128 + number)
        last = now
        raise KeyboardInterrupt if number == signal.SIGINT else Terminated(number)

    with _handling(unwind):
        yield caught


@contextlib.contextmanager
def shielded() -> Iterator[None]:
    """Ignore signals inside the block, in which a command prints its last line."""
    with _handling(signal.SIG_IGN):
        yield


@contextlib.contextmanager
def _handling(handler: Callable[[int, FrameType | None], Any] | signal.Handlers) -> Iterator[None]:
    is_ignored = {number: signal.getsignal(number) == signal.SIG_IGN for number in _ENDING}
    hang_up = getattr(signal, "SIGHUP", None)
    chosen = [number for number in _ENDING if not (number == hang_up and is_ignored[number])]
    before = {number: signal.signal(number, handler) for number in chosen}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)
