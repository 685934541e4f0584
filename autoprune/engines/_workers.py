"""The workers of a search: their number, their cluster, and the resources of each.

Example:
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
"""Deaths of its worker that fail a trial. Also deaths a worker, with none ready, that end a search."""


@dataclass(frozen=True)
class Workers:
    """The workers of a search.

    Args:
        number: most trials that run at once.
        cpus: CPU cores of one trial. None divides this process's threads among the workers.
        gpus: GPUs of one trial, such as 0.5. None divides the GPUs among the workers, if trials run on GPUs.
            The Ray engine only.
        address: of a running Ray cluster ("auto", "10.0.0.1:6379") that this machine belongs to. None and
            "local" start a cluster here. The Ray engine only.

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
        """Threads of PyTorch in a worker: its cores, or its part of this process's threads."""
        import torch

        return max(1, int(self.cpus) if self.cpus is not None else torch.get_num_threads() // self.number)

    @property
    def cluster(self) -> str | None:
        """Address of the running cluster to join, or None to start one here."""
        return None if self.address == "local" else self.address


def check_cores(workers: Workers, device: str | None = None) -> None:
    """Refuse more cores a trial than this machine has. Threads would share cores, and a batch takes minutes.

    Args:
        workers: number of trials at once, and the resources of each.
        device: of the trials. Any is accepted.

    Raises:
        ConfigError: a trial requests more cores.
    """
    cores = usable_cores()
    if workers.cpus is not None and workers.cpus > cores:
        raise ConfigError(
            f"search.cpus_per_trial: got {workers.cpus:g}, expected at most {cores}, the CPU cores that this "
            'process may use. Lower it, or join a cluster that has them (engine = "ray", search.ray.address).'
        )


class WorkerHealth:
    """Ends a search whose workers cannot start to score, if none ever could or too many in a row could not.

    Args:
        study: name of the study, for messages.
        number: workers at once.
    """

    def __init__(self, study: str, number: int) -> None:
        self._study = study
        self._limit = MAX_DEATHS * number
        self._in_a_row = 0
        self._any_worked = False

    def note_working(self) -> None:
        """Note that a worker has its scorer."""
        self._any_worked, self._in_a_row = True, 0

    def note_broken(self, reason: str, where: str = "") -> None:
        """Note that a worker could not make its scorer.

        Raises:
            StudyError: no worker ever could, or too many in a row could not.
        """
        self._in_a_row += 1
        if not self._any_worked or self._in_a_row >= self._limit:
            raise StudyError(f"{self._study}: a worker{where} could not make its scorer: {reason}")

    def note_death(self, how: str) -> None:
        """Note that a worker died before it was ready.

        Raises:
            StudyError: too many workers in a row died.
        """
        self._in_a_row += 1
        if self._in_a_row >= self._limit:
            raise StudyError(
                f"{self._study}: {self._in_a_row} workers died one after the other before they were ready "
                f'({how}). Lower search.workers, or use engine = "serial".'
            )


@contextlib.contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables inside the block, for processes that it starts, and restore them after it."""
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
