"""Raises Ctrl-C, SIGTERM and SIGHUP as exceptions, so that an interrupted command queues its trials again.

Example:
    with caught_signals() as caught:
        app()                        # raises KeyboardInterrupt, or its subclass Terminated
    caught                           # [130] after Ctrl-C, [143] after SIGTERM, [129] after SIGHUP
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
"""Seconds after a signal in which others are ignored. A second Ctrl-C would interrupt the clean-up."""

_ENDING = {
    getattr(signal, name): word
    for name, word in (("SIGINT", "Interrupted"), ("SIGTERM", "Terminated"), ("SIGHUP", "Hung up"))
    if hasattr(signal, name)  # Windows has no SIGHUP
}
"""{signal: the word for a command that it ended}."""


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP arrived. Handled like Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__()
        self.number = number


def ended_by(interrupt: KeyboardInterrupt) -> tuple[str, int]:
    """Return the word and the exit code for a command that a signal ended."""
    number = interrupt.number if isinstance(interrupt, Terminated) else signal.SIGINT
    return _ENDING[number], 128 + number


@contextlib.contextmanager
def caught_signals() -> Iterator[list[int]]:
    """Raise KeyboardInterrupt on Ctrl-C and Terminated on other signals.

    A SIGHUP that is already ignored, as under nohup, stays ignored.

    Yields:
        The exit codes of all signals so far.
    """
    caught: list[int] = []
    owner = os.getpid()
    last = -GRACE_S

    def unwind(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if os.getpid() != owner:  # a forked child has nothing to clean up
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
    """Ignore signals inside the block, so that a command can print its last line."""
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
