"""The command line: parses, calls the function that a script would call, prints what it returns.

Mistakes of the user end in one line and exit code 2, Ctrl-C in 130, SIGTERM in 143, a terminal that is closed
in 129, none of them with a traceback:

    autoprune search digits --set search.trials=8
"""

from __future__ import annotations

import sys

from autoprune.cli._signals import caught_signals
from autoprune.errors import AutopruneError, is_out_of_memory, reason_of

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
            # Whatever a signal led to (an import that broke off in the middle raises all sorts of things).
            if caught:
                sys.exit(caught[0])
            raise


def _run() -> int:
    """Run the command that was typed, and return its exit code. A user's mistake ends here."""
    from autoprune.cli._console import end_with, prepare_streams

    prepare_streams()
    try:
        from autoprune.cli.commands import run_command

        return run_command()
    except AutopruneError as error:
        end_with(str(error) or type(error).__name__)
    except OSError as error:
        place = "" if error.filename is None else f"{error.filename}: "
        end_with(f"{place}{reason_of(error)}.")
    except RecursionError as error:
        end_with(f"{reason_of(error)}: a value is nested too deeply; give it with fewer levels.")
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        end_with(f"out of memory: {reason_of(error)}; lower data.batch_size, or take another search.device.")
