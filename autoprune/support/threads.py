"""Own CPU cores and threads: how many this process may use, and how many torch uses for a while.

Before: nothing; after: trainings, measurements and workers run on the threads that they are to have.

    with cpu_threads(min(4, usable_cores())):
        model(images)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def usable_cores() -> int:
    """Return how many CPU cores this process may use: under taskset or in a container, not all there are."""
    if hasattr(os, "sched_getaffinity"):  # Linux alone tells
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Run torch on so many CPU threads inside the block, and on as many as before after it."""
    import torch  # takes a while to import

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
