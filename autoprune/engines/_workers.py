"""Own what an engine is given to run trials on: how many workers, where, and what each of them may use.

Before: the [search] settings; after: engines with several processes start so many.

    Workers(4, gpus=0.5, address="auto")      # four at once, two on a GPU, on the Ray cluster of this machine
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.errors import ConfigError
from autoprune.support.threads import usable_cores


@dataclass(frozen=True)
class Workers:
    """The workers of a search.

    Args:
        number: trials that run at once, at most.
        cpus: CPU cores of one trial; None shares out this process's threads.
        gpus: GPUs of one trial, such as 0.5; None shares out those there are, where trials run on GPUs.
            The Ray engine only.
        address: of a running Ray cluster ("auto", "10.0.0.1:6379") that this machine belongs to; None and
            "local" start one here. The Ray engine only.

    Raises:
        ConfigError: `number` is below 1. What an engine cannot give out, it refuses itself.
    """

    number: int = 1
    cpus: float | None = None
    gpus: float | None = None
    address: str | None = None

    def __post_init__(self) -> None:
        if self.number < 1:
            raise ConfigError(f"search.workers: got {self.number}, expected 1 or more.")

    @property
    def threads(self) -> int:
        """Threads that PyTorch has in a worker: its cores, or its part of this process's threads."""
        import torch

        return max(1, int(self.cpus) if self.cpus is not None else torch.get_num_threads() // self.number)

    @property
    def cluster(self) -> str | None:
        """Address of the running cluster to join; None where one is started here."""
        return None if self.address == "local" else self.address


def check_cores(workers: Workers) -> None:
    """Refuse more cores a trial than this machine has: its threads would take turns, for minutes a batch.

    Raises:
        ConfigError: it asks for more.
    """
    cores = usable_cores()
    if workers.cpus is not None and workers.cpus > cores:
        raise ConfigError(
            f"search.cpus_per_trial: got {workers.cpus:g}, expected at most {cores}, the CPU cores that this "
            'process may use; lower it, or join a cluster that has them (engine = "ray", search.address).'
        )


@dataclass(frozen=True)
class TrialResources:
    """What each of `number` trials at once gets of the machines: settled numbers in place of None."""

    number: int
    cpus: float
    gpus: float

    @property
    def threads(self) -> int:
        """Threads that PyTorch has in a worker."""
        return max(1, int(self.cpus))
