"""A console that escapes control characters.

Names of studies, paths and reasons of failures may come from files that others wrote, so they must not reach
the terminal unescaped.

Example:
    PrintableConsole(stderr=True).print(trial_table(summary))
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from typing import IO, Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from autoprune.errors import OutputError, printable, reason_of

READER_LEFT = 141
"""Exit code if the reader of the output is gone. A shell reports the same for a program that SIGPIPE ends."""


class PrintableConsole(Console):
    """A rich console without markup, which escapes the control characters of all texts."""

    def __init__(self, **options: Any) -> None:
        """Create a rich console that prints "[/red]" and ":x:" literally, instead of as markup and emoji."""
        super().__init__(markup=False, emoji=False, **options)

    @property
    def can_redraw(self) -> bool:
        """Whether lines that were printed can be drawn again. FORCE_COLOR alone makes no terminal."""
        return self.is_interactive and self.file.isatty()

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and escape all control characters that rich itself did not add."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape a text before rich measures its width, so that tables leave enough room for it."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does.

        Raises:
            OutputError: the disk of the output file is full, or the terminal is gone.
        """
        try:
            super().print(*objects, **options)
        except OSError as error:
            abandon(self.file)
            name = "error" if self.stderr else "output"
            raise OutputError(f"standard {name}: {reason_of(error)}.") from error

    def on_broken_pipe(self) -> None:
        """Exit quietly, since the reader has enough, as in `autoprune report STUDY | head -1`."""
        abandon(self.file)
        raise SystemExit(READER_LEFT)


def abandon(stream: IO[str]) -> None:
    """Discard the unwritten rest of a stream, so that the interpreter does not fail on it at its exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
