"""The command line: parses arguments, calls the function that a script would call, and prints its result.

A mistake of the user ends in one line and exit code 2. Ctrl-C ends in exit code 130, SIGTERM in 143, and a
closed terminal in 129. None of them prints a traceback.

    $ autoprune search digits --set search.trials=8
"""

from __future__ import annotations

import sys

from autoprune.cli._signals import caught_signals
from autoprune.errors import AutopruneError, LostProcessError, ProcessError, is_out_of_memory, reason_of

__all__ = [
    "AutopruneError",
    "caught_signals",
    "is_out_of_memory",
    "main",
    "reason_of",
]


def main() -> None:
    """Run the command line and exit with its code."""
    with caught_signals() as caught:
        try:
            sys.exit(_run())
        except BaseException:
            # A signal that interrupts an import can surface as almost any exception.
            if caught:
                sys.exit(caught[0])
            raise


def _run() -> int:
    """Run the typed command and return its exit code. Turn errors into one line on standard error."""
    from autoprune.cli._console import end_with, prepare_streams

    prepare_streams()
    try:
        from autoprune.cli.commands import run_command

        return run_command()
    except AutopruneError as error:
        is_own = isinstance(error, ProcessError) and not isinstance(error, LostProcessError)
        end_with(str(error) or type(error).__name__, of_all=is_own)
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        end_with(f"{place}{reason_of(error)}.")
    except RecursionError as error:
        end_with(f"{reason_of(error)}: a value is nested too deeply. Give it with fewer levels.")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        end_with(f"out of memory: {reason_of(error)}. Lower data.batch_size, or take another search.device.")
