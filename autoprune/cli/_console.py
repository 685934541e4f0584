"""A console that escapes control characters, and ends cleanly if the output can no longer be written.

Names of studies, paths and reasons of failures may come from files that others wrote, so they must not reach
the terminal unescaped.

Example:
    console.print(trial_table(summary))
    end_with("run.toml: no such config file.")        # "autoprune: run.toml: no such ..." and exit code 2
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable
from typing import Any, NoReturn, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from autoprune.errors import OutputError, one_line, printable, reason_of

MISTAKE = 2
"""Exit code of an error that the user, or an administrator of the machine, can fix."""

READER_LEFT = 141
"""Exit code if the reader of the output is gone. A shell reports the same for a program that SIGPIPE ends."""


class PrintableConsole(Console):
    """A rich console without markup, which escapes the control characters of all texts."""

    def __init__(self, **options: Any) -> None:
        """Create a rich console that prints "[/red]" and ":x:" literally, instead of as markup and emoji."""
        super().__init__(markup=False, emoji=False, **options)

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
            abandon(sys.stdout)
            raise OutputError(f"standard output: {reason_of(error)}.") from error

    def on_broken_pipe(self) -> None:
        """Exit quietly, since the reader has enough, as in `autoprune report STUDY | head -1`."""
        abandon(sys.stdout)
        raise SystemExit(READER_LEFT)


console = PrintableConsole()


def prepare_streams() -> None:
    """Escape characters that the encoding of the terminal lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon(stream: TextIO) -> None:
    """Discard the unwritten rest of a stream, so that the interpreter does not fail on it at its exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def end_with(message: str) -> NoReturn:
    """Print a message as one line on standard error, and exit with the code MISTAKE."""
    with contextlib.suppress(OutputError):
        PrintableConsole(stderr=True, soft_wrap=True).print(
            f"autoprune: {one_line(message)}", style="red", highlight=False
        )
    sys.exit(MISTAKE)
