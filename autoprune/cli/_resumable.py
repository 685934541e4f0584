"""Prints the command that resumes an interrupted one."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator

import typer

from autoprune.cli._output import progress_console
from autoprune.cli._signals import ended_by, shielded
from autoprune.errors import AutopruneError, OutputError, shown_url


def same_command() -> str:
    """Return the command as it was typed, without the password of a storage."""
    return shlex.join(["autoprune", *map(shown_url, sys.argv[1:])])


@contextlib.contextmanager
def resumable(go_on: Callable[[], str | None]) -> Iterator[None]:
    """Print the command that resumes the block if Ctrl-C, SIGTERM or SIGHUP interrupts it.

    Args:
        go_on: returns that command, or None if the study of the command does not exist yet. It is called only
            after an interrupt.
    """
    try:
        yield
    except KeyboardInterrupt as interrupt:
        with shielded():
            word, code = ended_by(interrupt)
            try:
                command = go_on()
            except AutopruneError:  # the storage cannot be read at the moment
                command = same_command()
            line = f"{word}. Finished work is kept. Resume with: {command}"
            if command is None:
                line = f"{word} before the study was created. Run again: {same_command()}"
            with contextlib.suppress(OutputError):  # the terminal is gone
                progress_console().print(line, soft_wrap=True, highlight=False)
        raise typer.Exit(code) from None
