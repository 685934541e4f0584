"""The argument `watch`: a function, a display by default, or nothing."""

from __future__ import annotations

import io
import sys

import pytest

from autoprune.progress import watching
from autoprune.support.events import Counted, Event, Stage, silent


class Tty(io.StringIO):
    """A terminal that keeps what is written to it, until it is gone."""

    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(5, "Input/output error")
        return super().write(text)


def test_a_function_gets_the_events() -> None:
    seen: list[Event] = []
    with watching(seen.append) as watch:
        watch(Stage("one"))
    assert seen == [Stage("one")]


@pytest.mark.parametrize("watch", [None, False, True])
def test_nothing_is_shown_without_a_terminal(watch: bool | None) -> None:
    with watching(watch) as found:
        assert found is silent


@pytest.mark.parametrize("off", [None, False])
def test_a_display_can_be_turned_off_on_a_terminal(off: bool | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Tty())
    with watching(off) as found:
        assert found is silent


def test_a_terminal_shows_events_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Tty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal)
    with watching(True) as watch:
        watch(Stage("one"))
        terminal.is_gone = True
        watch(Stage("two"))
        watch(Stage("three"))
        terminal.is_gone = False
    assert "one" in terminal.getvalue()
    assert "three" not in terminal.getvalue()


def test_the_verbs_take_what_watching_takes() -> None:
    import autoprune
    from autoprune.errors import ConfigError

    with pytest.raises(ConfigError, match="search: watch: got 3, expected a function or"):
        autoprune.search(config={}, watch=3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no config given"):
        autoprune.search(watch=False)


def test_traces_and_moments_report_their_steps() -> None:
    import torch
    from torch import nn

    import autoprune

    seen: list[Counted] = []

    def note(event: Event) -> None:
        assert isinstance(event, Counted)
        seen.append(event)

    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3))
    prunable = autoprune.trace(net, torch.zeros(1, 1, 8, 8), watch=note)
    assert [(each.what, each.done, each.total) for each in seen] == [("tracing", n, 4) for n in range(5)]
    seen.clear()
    autoprune.moments(prunable, [torch.randn(4, 1, 8, 8)] * 3, images=10, watch=note)
    assert [(each.what, each.done, each.total) for each in seen] == [("moments", n, 10) for n in (4, 8, 10)]
