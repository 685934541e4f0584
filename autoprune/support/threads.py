"""Count the CPU cores that this process may use, and set the number of torch's threads.

Example:
    with cpu_threads(min(4, usable_cores())):
        model(images)
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator


def usable_cores() -> int:
    """Return the number of CPU cores that this process may use, which taskset or a container may limit."""
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def cpu_threads(threads: int) -> Iterator[None]:
    """Run torch on `threads` CPU threads inside the block, and restore the former number at its end."""
    import torch  # takes a while to import

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
