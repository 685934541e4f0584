"""A chart of the HTML report as geometry: lines and marks on axes, which a template writes as SVG.

Horizontal places are percentages of the plot's width, and vertical ones are pixels, so that a chart fits any
width of the page while its text keeps its size.

Example:
    axis = Axis.over([0.88, 0.93])
    axis.at(0.9), [tick.text for tick in axis.ticks]
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

HEIGHT = 240.0
"""Height of a plot in pixels."""

MANY = 150
"""A chart with more marks than this draws them smaller."""

_LARGEST = 1e100
"""Values beyond this, which only a damaged study has, are drawn at the end of an axis."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 5


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, from 0 to 1."""

    at: float
    text: str


@dataclass(frozen=True)
class Axis:
    """A linear axis.

    Attributes:
        low: the value at 0.
        high: the value at 1.
        write: writes the value of a tick, or None for as many digits as the ticks need.
    """

    low: float
    high: float
    write: Callable[[float], str] | None = None

    @classmethod
    def over(
        cls, values: Iterable[float], *, write: Callable[[float], str] | None = None, pad: float = 0.06
    ) -> Axis:
        """Return an axis that shows some values, with free room of a share `pad` on both sides."""
        known = [value for value in values if abs(value) < _LARGEST] or [0.0]
        low, high = min(known), max(known)
        room = pad * (high - low) or 0.05 * abs(high) or 0.5
        return cls(low - room, high + room, write)

    def at(self, value: float) -> float:
        """Return the place of a value from 0 to 1. Values beyond the axis are at its ends."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))

    @property
    def ticks(self) -> list[Tick]:
        """Round values on the axis."""
        raw = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(each * power for each in _STEPS if each * power >= raw * 0.999)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        decimals = max(0, -math.floor(math.log10(step) + 1e-9) + (step / power == 2.5))
        write = self.write or (lambda value: f"{value:,.{decimals}f}")
        return [Tick(self.at(each * step), write(each * step)) for each in range(first, last + 1)]


@dataclass(frozen=True)
class Line:
    """A straight line from (x1, y1) to (x2, y2), with the CSS class `kind`."""

    x1: float
    y1: float
    x2: float
    y2: float
    kind: str


@dataclass(frozen=True)
class Mark:
    """A point that a reader can hover over and reach by the keyboard.

    Attributes:
        x: percentage of the width.
        y: pixels from the top.
        kind: its CSS class, which chooses its colour.
        text: its description.
        trial: number of its trial, or None. The marks of a trial are highlighted together.
        shape: "dot", "diamond", "cross" or "below".
        size: radius in pixels.
    """

    x: float
    y: float
    kind: str
    text: str
    trial: int | None = None
    shape: str = "dot"
    size: float = 4.0


@dataclass(frozen=True)
class Bar:
    """A rectangle from (x, y), `width` percent wide and `height` pixels high. Text and trial as of a mark."""

    x: float
    y: float
    width: float
    height: float
    kind: str
    text: str = ""


@dataclass(frozen=True)
class Key:
    """An entry of a legend: a shape of a kind, and its meaning."""

    shape: str
    kind: str
    text: str


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        title: its heading.
        aid: one line on how to read it.
        x_label: of the horizontal axis.
        y_label: of the vertical axis, which stands above the plot.
        x_ticks: ticks of the horizontal axis.
        y_ticks: ticks of the vertical axis.
        lines: lines, drawn first.
        bars: bars, drawn next.
        marks: marks, drawn last.
        legend: entries of the legend.
        height: of the plot in pixels.
        is_wide: whether it takes the whole width of the page.
    """

    title: str
    aid: str
    x_label: str = ""
    y_label: str = ""
    x_ticks: Sequence[Tick] = ()
    y_ticks: Sequence[Tick] = ()
    lines: Sequence[Line] = ()
    bars: Sequence[Bar] = ()
    marks: Sequence[Mark] = ()
    legend: Sequence[Key] = ()
    height: float = HEIGHT
    is_wide: bool = False

    @property
    def is_dense(self) -> bool:
        """Whether its marks are drawn smaller."""
        return len(self.marks) > MANY


@dataclass
class Plot:
    """Collects the lines and marks of a chart at values of its axes."""

    x: Axis
    y: Axis
    height: float = HEIGHT
    lines: list[Line] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Return the place (percent, pixels) of a point, rounded so that the file stays small."""
        return round(100 * self.x.at(x), 2), round(self.height * (1 - self.y.at(y)), 1)

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
        """Draw a line between two points."""
        self.lines.append(Line(*self.place(*start), *self.place(*end), kind))

    def across(self, y: float, kind: str) -> None:
        """Draw a horizontal line at a value."""
        self.line((self.x.low, y), (self.x.high, y), kind)

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Join points by lines."""
        for start, end in itertools.pairwise(points):
            self.line(start, end, kind)

    def steps(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Join points by a staircase, each point holding up to the next one."""
        for start, end in itertools.pairwise(points):
            self.line(start, (end[0], start[1]), kind)
            self.line((end[0], start[1]), end, kind)

    def mark(
        self,
        point: tuple[float, float],
        kind: str,
        text: str,
        *,
        trial: int | None = None,
        shape: str = "dot",
        size: float = 4.0,
    ) -> None:
        """Draw a mark."""
        self.marks.append(Mark(*self.place(*point), kind, text, trial, shape, size))
