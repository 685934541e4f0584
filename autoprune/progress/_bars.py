"""The counts that are under way, with the time that each still takes.

Example:
    bars = Bars()
    bars.advance(Counted("searching", 3, 60, "best 0.9120"), now=12.0)
    bars.shown[0].left_s(now=12.5)
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.progress._times import time_text
from autoprune.support.events import Counted


@dataclass
class Bar:
    """A count under way. Times are seconds of a monotonic clock.

    Attributes:
        count: the last event.
        started: when the count began here.
        done_before: how much was done then, as of a resumed search.
        moved: when the last step ended.
    """

    count: Counted
    started: float
    done_before: int
    moved: float

    def left_s(self, now: float) -> float | None:
        """Return the seconds until the end at the pace so far, or None before the first step."""
        steps = self.count.done - self.done_before
        if steps <= 0:
            return None
        ends = self.moved + (self.moved - self.started) / steps * (self.count.total - self.count.done)
        return max(0.0, ends - now)

    def left_text(self, now: float) -> str:
        """Return "25 min left", or "" before the first step and after the last one."""
        left = self.left_s(now) if self.count.done < self.count.total else None
        return "" if left is None else f"{time_text(left)} left"

    def line(self, now: float) -> str:
        """Return the state of the count in one line."""
        parts = (f"{self.count.done:,} of {self.count.total:,}", self.count.note, self.left_text(now))
        return f"{self.count.what}: {', '.join(part for part in parts if part)}"


class Bars:
    """At most one count of each level, such as the steps in an epoch of a training in a race.

    A count that ends before its total, as a timing does whose candidates settle early, is replaced by the
    next one of its level or of one above.
    """

    def __init__(self) -> None:
        self._levels: dict[int, Bar] = {}

    @property
    def shown(self) -> tuple[Bar, ...]:
        """The counts to show, the outermost one first."""
        return tuple(self._levels[level] for level in sorted(self._levels))

    def advance(self, count: Counted, now: float) -> Bar:
        """Note a step of a count, or its beginning, and return its bar."""
        known = next((bar for bar in self.shown if bar.count.what == count.what), None)
        bar = known or Bar(count, now, count.done, now)
        bar.count, bar.moved = count, now
        self._levels = {level: each for level, each in self._levels.items() if level < count.level}
        if count.done < count.total:
            self._levels[count.level] = bar
        return bar
