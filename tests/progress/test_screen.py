"""The lines that a search leaves in a terminal or a log, its bars, and its output in a notebook."""

from __future__ import annotations

import dataclasses
import io

import pytest

from autoprune.progress import Screen
from autoprune.progress._bars import Bars
from autoprune.progress._surfaces import Notebook, bar_grid, html_of
from autoprune.support.events import Counted, EpochDone, Stage, TrialDone
from autoprune.support.printing import PrintableConsole

DONE = TrialDone(3, "complete", 0.9123, "MACs", 0.4567, 12.34, "", done=4, trials=8, best=(0.9123, 0.4567))


class Clock:
    """A clock that the test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Tty(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


def log(**options: object) -> tuple[PrintableConsole, io.StringIO]:
    file = io.StringIO()
    return PrintableConsole(file=file, width=100, **options), file


@pytest.mark.parametrize(("latency_ms", "said"), [(None, ""), (1.0824, "  latency 1.08 ms")])
def test_a_trials_line_shows_milliseconds_if_latency_is_limited(latency_ms: float | None, said: str) -> None:
    console, file = log()
    with Screen(console) as watch:
        watch(dataclasses.replace(DONE, latency_ms=latency_ms))
    line = f"trial   3  score  0.9123  MACs  45.7%{said}    12.3 s  complete"
    assert file.getvalue().splitlines() == [line]


def test_a_trials_line_shows_the_standard_error_of_its_score() -> None:
    console, file = log()
    with Screen(console) as watch:
        watch(dataclasses.replace(DONE, error=0.00451))
    assert "score 0.9123 ±0.0045  MACs" in file.getvalue()


def test_a_count_inside_a_phase_has_a_bar_under_it_and_is_left_when_another_begins() -> None:
    """A count that ends before its total, as a timing does whose candidates settle early, leaves no bar."""
    bars = Bars()

    def shown() -> list[tuple[str, int]]:
        return [(bar.count.what, bar.count.done) for bar in bars.shown]

    bars.advance(Counted("timing candidates", 97, 245), now=0)
    bars.advance(Counted("timing candidates", 98, 245), now=1)
    assert shown() == [("timing candidates", 98)]
    bars.advance(Counted("searching", 4, 8, level=0), now=2)
    assert shown() == [("searching", 4)]
    bars.advance(Counted("training", 1, 5, level=1), now=3)
    bars.advance(Counted("steps", 7, 9), now=3)
    assert shown() == [("searching", 4), ("training", 1), ("steps", 7)]
    bars.advance(Counted("training", 2, 5, level=1), now=3)
    assert shown() == [("searching", 4), ("training", 2)]
    bars.advance(Counted("training", 5, 5, level=1), now=4)
    assert shown() == [("searching", 4)]
    bars.advance(Counted("searching", 8, 8, level=0), now=5)
    assert shown() == []


def test_the_time_left_follows_the_pace_since_the_start_and_falls_between_steps() -> None:
    """Trials of an earlier process, which a resume counts as done, took no time here."""
    bars = Bars()
    bar = bars.advance(Counted("searching", 40, 60, level=0), now=100)
    assert bar.left_s(now=130) is None
    bars.advance(Counted("searching", 42, 60, level=0), now=120)
    assert bar.left_s(now=120) == pytest.approx(18 * 10)
    assert bar.left_s(now=150) == pytest.approx(18 * 10 - 30)
    assert bar.line(now=120) == "searching: 42 of 60, 3 min left"
    bars.advance(Counted("searching", 60, 60, "best 0.9", level=0), now=300)
    assert bar.left_s(now=400) == 0


def test_a_log_has_a_line_now_and_then_about_a_count_and_none_about_most_short_epochs() -> None:
    clock = Clock()
    console, file = log()
    with Screen(console, clock) as watch:
        for step in range(1, 101):
            clock.now += 0.5
            watch(Counted("moments", step, 100))
        for epoch in range(1, 31):
            clock.now += 0.1
            watch(EpochDone(epoch, 30, 0.5, 0.9, 0.1))
        watch(Stage("done"))
    lines = file.getvalue().splitlines()
    assert lines[:2] == ["moments: 41 of 100, 30 s left", "moments: 81 of 100, 10 s left"]
    epochs = [int(line.split()[1].partition("/")[0]) for line in lines[2:-1]]
    assert epochs == [1, 21, 30]
    assert lines[-1] == "done"


def test_a_log_shows_the_end_of_a_long_phase_and_of_no_short_one() -> None:
    clock = Clock()
    console, file = log()
    with Screen(console, clock) as watch:
        for what, step_s in (("race, epochs", 15.0), ("searching", 1.0)):
            for done in range(5):
                watch(Counted(what, done, 4, level=0))
                clock.now += step_s
    lines = file.getvalue().splitlines()
    assert lines == ["race, epochs: 2 of 4, 30 s left", "race, epochs: 4 of 4"]


def test_a_terminal_shows_every_epoch_and_a_bar_with_the_time_left() -> None:
    file, clock = Tty(), Clock()
    console = PrintableConsole(file=file, width=100, force_terminal=True, _environ={"TERM": "xterm"})
    with Screen(console, clock) as watch:
        for epoch in range(1, 3):
            clock.now += 10
            watch(EpochDone(epoch, 4, 0.5, 0.9, 10.0))
        watch(Stage("half is done"))
    printed = file.getvalue()
    assert "epoch   1/4" in printed
    assert "epoch   2/4" in printed
    assert "2/4" in printed.rpartition("half is done")[2]
    assert "20 s left" in printed


def test_forced_colours_make_no_terminal() -> None:
    console, file = log(_environ={"FORCE_COLOR": "1"})
    assert console.color_system is not None
    with Screen(console) as watch:
        watch(Counted("moments", 1, 2))
        watch(Stage("text"))
    assert file.getvalue() == "text\n"


def test_a_notebook_shows_lines_and_bars_in_one_output(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel is the test: what a cell would show is the last page that was handed over."""
    display = pytest.importorskip("IPython.display")
    pages: list[str] = []

    class Handle:
        def update(self, page: object) -> None:
            pages[-1] = page.data  # type: ignore[attr-defined]

    def shown(page: object, display_id: bool) -> Handle:
        pages.append(page.data)  # type: ignore[attr-defined]
        return Handle()

    monkeypatch.setattr(display, "display", shown)
    clock = Clock()
    console = PrintableConsole(force_jupyter=True)
    with Screen(console, clock) as watch:
        assert isinstance(watch._surface, Notebook)
        watch(Stage("traced <7> groups"))
        clock.now = 1
        watch(DONE)
        clock.now = 2
        watch(Counted("searching", 5, 8, level=0))
        assert "5/8" in pages[0]
        assert "3 s left" in pages[0]
    assert len(pages) == 1
    assert "traced &lt;7&gt; groups" in pages[0]
    assert "trial   3" in pages[0]
    assert "5/8" not in pages[0]


def test_html_escapes_control_characters() -> None:
    assert "\\x1b[31m" in html_of("a\x1b[31mb")


def test_a_narrow_terminal_cuts_the_note_alone() -> None:
    bars = Bars()
    bars.advance(Counted("searching", 5, 10, "best 0.9123 at 45.7% of the MACs", level=0), now=0)
    file = io.StringIO()
    PrintableConsole(file=file, width=60).print(bar_grid(bars, now=3))
    (line,) = file.getvalue().splitlines()
    assert line.startswith("searching ")
    assert "5/10 0:00:03 best" in line
    assert line.rstrip().endswith("…")
