"""Silences the progress lines of Optuna, since the watcher of a run reports its own.

They are shown if the logger "autoprune" has the level INFO, as under `autoprune search -v`.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

import optuna

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Let Optuna log only warnings and errors inside the `with` block, unless INFO is requested."""
    if _log.isEnabledFor(logging.INFO):
        yield
        return
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(max(before, optuna.logging.WARNING))
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
