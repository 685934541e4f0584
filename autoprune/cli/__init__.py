"""The command line: parses, calls the function that a script would call, prints what it returns.

Before: a shell; after: `config` and `pipeline`. Mistakes of the user end in one line and exit code 2:

    autoprune search digits --set search.trials=8
"""

from __future__ import annotations

import sys

from rich.console import Console

from autoprune.cli.commands import app
from autoprune.errors import AutopruneError

INTERRUPTED = 130
MISTAKE = 2


def main() -> None:
    """Run the command line and exit with its code."""
    try:
        app()
    except (AutopruneError, OSError) as error:
        message = " ".join(str(error).split()) or type(error).__name__
        Console(stderr=True, soft_wrap=True).print(
            f"autoprune: {message}", style="red", markup=False, highlight=False
        )
        sys.exit(MISTAKE)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
