"""The command line: parses, calls the function that a script would call, prints what it returns.

Before: a shell; after: `config` and `pipeline`. Mistakes of the user end in one line and exit code 2,
Ctrl-C in 130, SIGTERM in 143, none of them with a traceback:

    autoprune search digits --set search.trials=8
"""

from __future__ import annotations

import sys
from typing import NoReturn

from autoprune.cli.signals import caught_signals
from autoprune.errors import AutopruneError, is_out_of_memory, reason_of

MISTAKE = 2


def main() -> None:
    """Run the command line and exit with its code."""
    with caught_signals() as caught:
        try:
            _run()
        except BaseException:
            # Whatever a signal led to (an import that broke off in the middle raises all sorts of things).
            if caught:
                sys.exit(caught[-1])
            raise


def _run() -> None:
    try:
        from autoprune.cli.commands import app

        app()
    except (AutopruneError, OSError) as error:
        _end_with(" ".join(str(error).split()) or type(error).__name__)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        _end_with(f"out of memory: {reason_of(error)}; lower data.batch_size, or take another search.device.")


def _end_with(message: str) -> NoReturn:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True).print(
        f"autoprune: {message}", style="red", markup=False, highlight=False
    )
    sys.exit(MISTAKE)
