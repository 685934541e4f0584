"""Shows events: a line for each step, trial and epoch, and a bar with the time left.

Example:
    with Screen(console) as watch:
        run.search(config=config, watch=watch)
"""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from autoprune.progress._bars import Bars
from autoprune.progress._lines import counted_of, line_of
from autoprune.progress._surfaces import Log, Notebook, Surface, Terminal
from autoprune.support.events import EpochDone, Event
from autoprune.support.printing import PrintableConsole

_EPOCH_EVERY_S = 2.0
"""Seconds between two lines about epochs where no terminal scrolls: thousands of short ones fill a log."""


class Screen:
    """A watcher that shows events. Use it in a `with` block, which removes the bars at its end.

    Args:
        console: where to draw. If it is no terminal, it gets plain lines.
        clock: returns seconds, as `time.monotonic` does.
    """

    def __init__(self, console: PrintableConsole, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._bars = Bars()
        self._epoch_line = -_EPOCH_EVERY_S
        self._surface: Surface
        if console.is_jupyter:
            self._surface = Notebook(clock)
        elif console.can_redraw:
            self._surface = Terminal(console, clock)
        else:
            self._surface = Log(console, clock)

    def __enter__(self) -> Screen:
        """Start drawing."""
        self._surface.start(self._bars)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Remove the bars. The printed lines stay."""
        self._surface.stop()

    def __call__(self, event: Event) -> None:
        """Draw one event."""
        line = line_of(event)
        if line is not None and not self._is_too_soon(event):
            self._surface.line(line)
        count = counted_of(event)
        if count is not None:
            self._surface.moved(self._bars.advance(count, self._clock()))

    def _is_too_soon(self, event: Event) -> bool:
        """Return whether the line of an epoch is left out because one was just printed."""
        if not isinstance(event, EpochDone) or isinstance(self._surface, Terminal):
            return False
        now = self._clock()
        if event.epoch < event.epochs and now - self._epoch_line < _EPOCH_EVERY_S:
            return True
        self._epoch_line = now
        return False
