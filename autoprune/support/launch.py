"""Read from the environment how many processes `torchrun` started for a command, and which one this is.

Example:
    launched().size      # 4 under `torchrun --nproc-per-node=4 -m autoprune finetune STUDY`, else 1
"""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """The processes that run one command together.

    Attributes:
        rank: number of this process, from 0. Process 0 leads: it alone writes and prints.
        size: number of processes on all machines.
        local_rank: number of this process among those of its machine.
        local_size: number of processes on its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes and prints."""
        return self.rank == 0


def launched() -> Launch:
    """Return the processes that torchrun started, or this process alone.

    Variables such as WORLD_SIZE count only if torchrun itself set them, because job schedulers set some of
    them for commands that share nothing.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return Launch()
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return Launch(*(int(os.environ[name]) for name in names))
