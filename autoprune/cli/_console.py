"""The console of the command line, and the one line with which a mistake ends.

Example:
    console.print(trial_table(summary))
    end_with("run.toml: no such config file.")        # "autoprune: run.toml: no such ..." and exit code 2
"""

from __future__ import annotations

import contextlib
import io
import sys
from typing import NoReturn

from autoprune.errors import OutputError, one_line
from autoprune.support.launch import launched
from autoprune.support.printing import PrintableConsole

MISTAKE = 2
"""Exit code of an error that the user, or an administrator of the machine, can fix."""

console = PrintableConsole(quiet=not launched().leads)
"""Of several processes that run one command together, the first one prints."""


def prepare_streams() -> None:
    """Escape characters that the encoding of the terminal lacks, instead of raising an error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def end_with(message: str, *, of_all: bool = False) -> NoReturn:
    """Print a message as one line on standard error, and exit with the code MISTAKE.

    Args:
        message: the message.
        of_all: whether each of several processes that run one command prints it, rather than the first alone.
    """
    quiet = not (of_all or launched().leads)
    with contextlib.suppress(OutputError):
        PrintableConsole(stderr=True, soft_wrap=True, no_color=console.no_color, quiet=quiet).print(
            f"autoprune: {one_line(message)}", style="red", highlight=False
        )
    sys.exit(MISTAKE)
