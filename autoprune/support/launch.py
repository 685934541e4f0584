"""Read from the environment how many processes `torchrun` started for a command, and which one this is.

Example:
    launched().size            # 4 under `torchrun --nproc-per-node=4 -m autoprune finetune STUDY`, else 1
    require_alone("search")    # refuses to run 4 searches at once
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from autoprune.errors import ConfigError

TRAININGS = ("finetune", "train")
"""The verbs that several processes of torchrun run together."""


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


def require_alone(verb: str) -> None:
    """Refuse a verb that several processes of torchrun would each run for themselves.

    Raises:
        ConfigError: torchrun started several processes, and the verb does not train one model.
    """
    size = launched().size
    if size == 1 or verb in TRAININGS:
        return
    advice = "torchrun serves " + " and ".join(TRAININGS)
    if verb in ("search", "resume"):
        advice = (
            f'for {size} trials at once set search.workers = {size} and search.engine = "processes", or '
            '"ray" for several machines'
        )
    raise ConfigError(f"{verb}: torchrun started {size} processes. Run it without torchrun: {advice}.")
