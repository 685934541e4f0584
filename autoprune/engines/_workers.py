"""The workers of a search: how many, where, and the share of the machine that each of them may use.

Workers(4, gpus=0.5, address="auto")      # four at once, two on a GPU, on the Ray cluster of this machine
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from autoprune.errors import ConfigError, StudyError
from autoprune.support.threads import usable_cores

MAX_DEATHS = 2
"""A trial whose worker died so often has failed; so many deaths a worker before any is ready end a search."""


@dataclass(frozen=True)
class Workers:
    """The workers of a search.

    Args:
        number: trials that run at once, at most.
        cpus: CPU cores of one trial; None shares out this process's threads.
        gpus: GPUs of one trial, such as 0.5; None shares out those there are, if trials run on GPUs.
            The Ray engine only.
        address: of a running Ray cluster ("auto", "10.0.0.1:6379") that this machine belongs to; None and
            "local" start one here. The Ray engine only.

    Raises:
        ConfigError: `number` is below 1. Each engine refuses shares that it cannot give.
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
        """Address of the running cluster to join; None if one is started here."""
        return None if self.address == "local" else self.address


def check_cores(workers: Workers, device: str | None = None) -> None:
    """Refuse more cores a trial than this machine has: its threads would take turns, for minutes a batch.

    Args:
        workers: how many, and what each may use.
        device: on which trials compute; any is accepted.

    Raises:
        ConfigError: it asks for more.
    """
    cores = usable_cores()
    if workers.cpus is not None and workers.cpus > cores:
        raise ConfigError(
            f"search.cpus_per_trial: got {workers.cpus:g}, expected at most {cores}, the CPU cores that this "
            'process may use; lower it, or join a cluster that has them (engine = "ray", search.ray.address).'
        )


class WorkerHealth:
    """Ends a search whose workers cannot begin to score; what some could do before, others may do later.

    Args:
        study: its name, for messages.
        number: of workers at once.
    """

    def __init__(self, study: str, number: int) -> None:
        self._study = study
        self._limit = MAX_DEATHS * number
        self._in_a_row = 0
        self._any_worked = False

    def note_working(self) -> None:
        """A worker has its scorer."""
        self._any_worked, self._in_a_row = True, 0

    def note_broken(self, reason: str, where: str = "") -> None:
        """A worker could not make its scorer.

        Raises:
            StudyError: none ever could, or too many in a row could not.
        """
        self._in_a_row += 1
        if not self._any_worked or self._in_a_row >= self._limit:
            raise StudyError(f"{self._study}: a worker{where} could not make its scorer: {reason}")

    def note_death(self, how: str) -> None:
        """A worker died before it was ready.

        Raises:
            StudyError: too many in a row did.
        """
        self._in_a_row += 1
        if self._in_a_row >= self._limit:
            raise StudyError(
                f"{self._study}: {self._in_a_row} workers died one after the other before they were ready "
                f'({how}). Lower search.workers, or use engine = "serial".'
            )


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, for processes that it starts, and undo that after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
