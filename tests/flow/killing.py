"""Runs a flow in processes that are killed at events, one after the other.

python -m tests.flow.killing FOLDER SELECTOR WORD ...

Each process is a fork of this one, in which autograd never ran: a fork of one in which it did cannot train.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import autoprune
from autoprune.support.events import Event
from tests.flow.nets import DATA, masked, net, settings


def config(folder: Path, by: str) -> dict[str, Any]:
    """Return a flow whose channels a selector chooses, or a flow of two passes of masks."""
    if by == "mask":
        return masked(folder, flow={"passes": 2}, mask={"schedule": "cubic"})
    return settings(
        folder,
        select={"by": by},
        search={"setting": "float32 contiguous", "trials": 3, "low": 0.2},
        score={"rungs": ["calibrate"], "calibration_batches": 1},
    )


def kill_at(word: str, folder: Path, by: str) -> bool:
    """Run the flow in a child that is killed at the first event with a word. Return whether it was."""
    child = os.fork()
    if child == 0:

        def watch(event: Event) -> None:
            if word in str(event):
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            autoprune.prune(net(), DATA, config(folder, by), watch=watch)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    folder, by, *words = sys.argv[1:]
    for word in words:
        if not kill_at(word, Path(folder), by):
            sys.exit(f"the flow was not killed at {word}")
