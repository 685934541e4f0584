"""Flows of two stages that can be killed at an event."""

from __future__ import annotations

import os
import signal
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


def prune_until(word: str, folder: Path, by: str) -> None:
    """Run the flow, and kill this process at the first event with a word."""

    def watch(event: Event) -> None:
        if word in str(event):
            os.kill(os.getpid(), signal.SIGKILL)

    autoprune.prune(net(), DATA, config(folder, by), watch=watch)
