"""Describe how a process ended.

Example:
    describe_exit(-11)      # "killed by SIGSEGV (signal 11)"
"""

from __future__ import annotations

import signal


def describe_exit(code: int | None) -> str:
    """Describe an exit code of `subprocess` or `multiprocessing`. A negative code is a signal number."""
    if code is None:
        return "it does not end"
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:  # real-time signals have no names
        return f"killed by signal {-code}"
    hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"killed by {name} (signal {-code}){hint}"
