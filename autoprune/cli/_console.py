"""The terminal as the command line writes to it: nothing that is printed can steer it or break it.

Names of studies, paths and reasons of failures come from files that others wrote:

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
"""Exit code if the user, or somebody who looks after the machine, has something to mend."""

READER_LEFT = 141
"""Exit code if nobody reads the output any more: a shell reports the same for a program that SIGPIPE ends."""


class PrintableConsole(Console):
    """A console whose texts reach the terminal as they are, with their control characters escaped."""

    def __init__(self, **options: Any) -> None:
        """Make a console as rich does, on which "[/red]" and ":x:" in a text are no markup and no picture."""
        super().__init__(markup=False, emoji=False, **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Render as rich does, and leave control sequences to rich alone."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=printable(segment.text))

    def render_str(self, text: str, **options: Any) -> Text:
        """Escape before widths are measured, so that a table cuts nothing off."""
        return super().render_str(printable(text), **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as rich does.

        Raises:
            OutputError: the disk that receives the output is full, or the terminal is gone.
        """
        try:
            super().print(*objects, **options)
        except OSError as error:
            abandon(sys.stdout)
            raise OutputError(f"standard output: {reason_of(error)}.") from error

    def on_broken_pipe(self) -> None:
        """End quietly: `autoprune report STUDY | head -1` has all that it wants."""
        abandon(sys.stdout)
        raise SystemExit(READER_LEFT)


console = PrintableConsole()


def prepare_streams() -> None:
    """Let characters that the terminal's encoding lacks be escaped, not end the command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def abandon(stream: TextIO) -> None:
    """Discard the unwritten rest of a stream, so that the interpreter does not fail on it as it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def end_with(message: str) -> NoReturn:
    """Print a message as one line on standard error, and exit with the code of a mistake."""
    with contextlib.suppress(OutputError):
        PrintableConsole(stderr=True, soft_wrap=True).print(
            f"autoprune: {one_line(message)}", style="red", highlight=False
        )
    sys.exit(MISTAKE)
