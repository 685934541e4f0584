"""The places where progress can be shown: a terminal, a notebook, or plain lines in a log."""

from __future__ import annotations

import importlib
import io
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from autoprune.progress._bars import Bar, Bars
from autoprune.support.printing import PrintableConsole

LOG_EVERY_S = 20.0
"""Seconds between two lines of a log about the same count."""

_REDRAWS_PER_S = 4
_NOTEBOOK_EVERY_S = 0.5
_NOTEBOOK_LINES = 16
_BAR_WIDTH = 24

Clock = Callable[[], float]


class Surface(Protocol):
    """A place where progress is shown."""

    def start(self, bars: Bars) -> None:
        """Begin to show counts."""
        ...

    def line(self, text: str) -> None:
        """Show a line that stays."""
        ...

    def moved(self, bar: Bar) -> None:
        """Show that a count has moved."""
        ...

    def stop(self) -> None:
        """Remove the bars. The lines stay."""
        ...


class Terminal:
    """Lines, and under them the bars, which are drawn again several times a second.

    Nothing is drawn again while there are no bars, so that a timing is not disturbed.
    """

    def __init__(self, console: PrintableConsole, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._bars = Bars()
        self._live: Live | None = None

    def start(self, bars: Bars) -> None:
        self._bars = bars

    def line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def moved(self, bar: Bar) -> None:
        if not self._bars.shown:
            self.stop()
        elif self._live is None:
            self._live = Live(
                console=self._console,
                get_renderable=lambda: bar_grid(self._bars, self._clock()),
                refresh_per_second=_REDRAWS_PER_S,
                transient=True,
                # A script may write its results to a file while its progress is on the terminal.
                redirect_stdout=sys.stdout.isatty(),
            )
            self._live.start()

    def stop(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()


class Log:
    """Plain lines: those of events, one about each count now and then, and one at the end of a long phase."""

    def __init__(self, console: PrintableConsole, clock: Clock = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._last: dict[str, float] = {}

    def start(self, bars: Bars) -> None:
        """Do nothing."""

    def line(self, text: str) -> None:
        self._console.print(text, highlight=False, soft_wrap=True)

    def moved(self, bar: Bar) -> None:
        now = self._clock()
        last = self._last.setdefault(bar.count.what, bar.started)
        is_over = bar.count.done >= bar.count.total
        # Without the last line a log would read as if the phase had stopped early.
        is_due = bar.count.level == 0 and last > bar.started if is_over else now - last >= LOG_EVERY_S
        if is_due:
            self._last[bar.count.what] = now
            self.line(bar.line(now))

    def stop(self) -> None:
        """Do nothing."""


class Notebook:
    """An output of a cell that is replaced: the last lines, and the bars. It needs no widgets."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._lines: deque[str] = deque(maxlen=_NOTEBOOK_LINES)
        self._bars = Bars()
        self._drawn = -_NOTEBOOK_EVERY_S
        self._handle: Any = None

    def start(self, bars: Bars) -> None:
        self._bars = bars

    def line(self, text: str) -> None:
        self._lines.append(text)
        self._draw()

    def moved(self, bar: Bar) -> None:
        self._draw()

    def stop(self) -> None:
        self._bars = Bars()
        if self._lines:
            self._draw(at_once=True)

    def _draw(self, *, at_once: bool = False) -> None:
        now = self._clock()
        if not at_once and now - self._drawn < _NOTEBOOK_EVERY_S:
            return
        self._drawn = now
        ipython = importlib.import_module("IPython.display")  # a notebook has it
        page = ipython.HTML(html_of(Group(*map(Text, self._lines), bar_grid(self._bars, now))))
        if self._handle is None:
            self._handle = ipython.display(page, display_id=True)
        else:
            self._handle.update(page)


def bar_grid(bars: Bars, now: float) -> RenderableType:
    """Return the bars as rows: name, bar, count, elapsed time, time left, note."""
    grid = Table.grid(padding=(0, 1))
    for _ in range(4):
        grid.add_column(no_wrap=True)
    grid.add_column()  # the one that a narrow terminal cuts
    for bar in bars.shown:
        count = bar.count
        notes = [note for note in (bar.left_text(now), count.note) if note]
        grid.add_row(
            count.what,
            ProgressBar(total=max(1, count.total), completed=count.done, width=_BAR_WIDTH),
            f"{count.done:,}/{count.total:,}",
            _clock_text(now - bar.started),
            Text(", ".join(notes), no_wrap=True, overflow="ellipsis"),
        )
    return grid


def html_of(renderable: RenderableType) -> str:
    """Return a renderable as HTML, in the colours of the page around it."""
    console = PrintableConsole(file=io.StringIO(), record=True, width=110, force_jupyter=False)
    console.print(renderable, soft_wrap=True, highlight=False)
    return console.export_html(inline_styles=True, code_format='<pre style="line-height:1.25">{code}</pre>')


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
