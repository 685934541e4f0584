"""A clock for tests of time limits: what hangs is found to hang, however late a busy machine starts it.

clock = StandingClock(lambda: marker.exists())
"""

from __future__ import annotations

from collections.abc import Callable


class StandingClock:
    """Stands at 0 until something has happened, and is hours later from then on. Its first reading is 0."""

    def __init__(self, has_happened: Callable[[], bool]) -> None:
        self._has_happened = has_happened
        self._now: float | None = None

    def __call__(self) -> float:
        if self._now is None:
            self._now = 0.0
        elif self._has_happened():
            self._now = 1e4
        return self._now
