"""The argument `watch` of the public verbs: a function of the user, the display, or nothing.

Example:
    with watching(watch) as report:
        report(Stage("tracing the model"))
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from types import NoneType

from autoprune.errors import OutputError
from autoprune.progress._screen import Screen
from autoprune.support.events import Event, Watcher, silent
from autoprune.support.printing import PrintableConsole

Watch = Watcher | bool | None
"""A function that gets the events, True for a display in a terminal or a notebook, or None for nothing."""

GIVEN_WATCH = (Callable, bool, NoneType)
"""The classes of an argument `watch`."""


@contextlib.contextmanager
def watching(watch: Watch) -> Iterator[Watcher]:
    """Yield the watcher that an argument `watch` means. A display is drawn on standard error."""
    if callable(watch):
        yield watch
        return
    console = PrintableConsole(stderr=True) if watch else None
    if console is None or not (console.is_jupyter or console.can_redraw):
        yield silent
        return
    with Screen(console) as screen:
        yield _harmless(screen)


def _harmless(screen: Screen) -> Watcher:
    """Return a watcher that goes silent if the terminal is gone, since results do not depend on it."""
    is_gone = False

    def show(event: Event) -> None:
        nonlocal is_gone
        if not is_gone:
            try:
                screen(event)
            except OutputError:
                is_gone = True

    return show
