"""The processes that train one model together, each on its share of every batch.

The gradients are averaged in one message after the backward pass. DistributedDataParallel would send them
during that pass, but it wraps the model, and here training steps and hooks get the model itself.

    with joined() as group:                       # ALONE if torchrun started no other process
        settings = group.shared(settings)         # those of process 0
        loss = group.averaged(model.parameters(), loss)
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as distributed
from torch import Tensor, nn

from autoprune.errors import ConfigError, LostProcessError, ProcessError, is_out_of_memory, reason_of
from autoprune.execution._setting import Setting
from autoprune.execution._statistics import GlobalStatistics
from autoprune.support.launch import Launch, launched
from autoprune.support.threads import usable_cores

PATIENCE = datetime.timedelta(hours=2)
"""How long processes wait for each other, for example while process 0 evaluates. torchrun ends those that
wait for a dead process."""


@dataclass(frozen=True)
class Group(Launch):
    """The processes that train together. Each of them must call the same methods in the same order."""

    def shared(self, value: Any = None) -> Any:
        """Return the value of process 0 in all processes. It is pickled.

        Raises:
            ProcessError: the value cannot be pickled.
            LostProcessError: another process is gone.
        """
        if self.size == 1:
            return value
        packed = [_packed(value) if self.leads else b""]
        with _reaching_all():
            distributed.broadcast_object_list(packed, src=0, device=torch.device("cpu"))
        return value if self.leads else pickle.loads(packed[0])

    def placed(self, setting: Setting) -> Setting:
        """Return a setting with the GPU of this process, or with its share of the CPU threads.

        Raises:
            ConfigError: the setting names one GPU by its number, or this machine has too few.
        """
        if self.size == 1:
            return setting
        threads = min(setting.threads, max(1, usable_cores() // self.local_size))
        setting = dataclasses.replace(setting, threads=threads)
        if not setting.device.startswith("cuda"):
            return setting
        return dataclasses.replace(setting, device=self.device(setting.device))

    def device(self, device: str) -> str:
        """Return the device of this process: "cuda:1" for "cuda" in the second process of a machine.

        Raises:
            ConfigError: the name has a number, or this machine has too few GPUs.
        """
        if self.size == 1 or not device.startswith("cuda"):
            return device
        if device not in ("cuda", "cuda:0"):
            raise ConfigError(
                f'search.device: got "{device}", but torchrun gives each process a GPU of its own. Use '
                '"cuda", and choose GPUs by the variable CUDA_VISIBLE_DEVICES.'
            )
        seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if self.local_size > seen:
            raise ConfigError(
                f"torchrun started {self.local_size} processes on this machine, but torch sees {seen} GPUs: "
                f"give --nproc-per-node={max(1, seen)}."
            )
        return f"cuda:{self.local_rank}"

    def weighted(self, loss: Tensor, samples: int) -> Tensor:
        """Return the loss of this process's share with the weight of that share.

        The mean of the weighted losses over all processes is the mean loss of the whole batch, even if the
        shares differ in size.

        Args:
            loss: the mean loss of the share.
            samples: number of samples in the share.
        """
        if self.size == 1:
            return loss
        total = torch.tensor(float(samples), device=loss.device)
        with _reaching_all():
            distributed.all_reduce(total)
        return loss * (samples * self.size / total)

    def mean(self, values: Tensor, samples: int) -> Tensor:
        """Return the means over the whole batch, without gradient.

        Args:
            values: means over the share of this process.
            samples: number of samples in the share.
        """
        if self.size == 1:
            return values
        sums = torch.cat([values.detach().reshape(-1) * samples, values.new_tensor([samples])])
        with _reaching_all():
            distributed.all_reduce(sums)
        return (sums[:-1] / sums[-1]).view_as(values)

    def averaged(self, parameters: Iterable[nn.Parameter], loss: Tensor) -> Tensor:
        """Replace the gradients by their means over all processes, and return the mean loss.

        A parameter that no process used keeps no gradient.
        """
        if self.size == 1:
            return loss
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([each.grad is not None for each in trained], device=loss.device)
        parts = [(torch.zeros_like(each) if each.grad is None else each.grad) for each in trained]
        whole = torch.cat([*(part.reshape(-1) for part in parts), used.float(), loss.float().reshape(1)])
        with _reaching_all():
            distributed.all_reduce(whole)
        whole /= self.size
        sizes = [*(part.numel() for part in parts), len(parts), 1]
        *means, counts, mean_loss = torch.split(whole, sizes)
        for number, (each, gradient) in enumerate(zip(trained, means, strict=True)):
            if each.grad is not None:
                each.grad.copy_(gradient.view_as(each))
            elif bool(counts[number]):  # another process used it. Reading the count waits for the device.
                each.grad = gradient.view_as(each).to(each.dtype).clone()
        return mean_loss.reshape(())

    @contextlib.contextmanager
    def global_statistics(self) -> Iterator[None]:
        """Let BatchNorm layers in train mode use the statistics of the whole batch inside the block."""
        with GlobalStatistics(self._gathered) if self.size > 1 else contextlib.nullcontext():
            yield

    def _gathered(self, own: Tensor) -> Tensor:
        rows = [torch.empty_like(own) for _ in range(self.size)]
        with _reaching_all():
            distributed.all_gather(rows, own)
        return torch.stack(rows)


ALONE = Group()
"""This process alone."""


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """Connect to the other processes of torchrun inside the block, or return ALONE if there are none.

    Messages between CPUs go by gloo, and those between GPUs by NCCL.

    Raises:
        ProcessError: the processes cannot be connected, or the script has connected their GPUs alone.
    """
    launch = launched()
    if launch.size == 1:
        yield ALONE
        return
    group = Group(**vars(launch))
    if distributed.is_initialized():  # by the script that calls autoprune
        _require_cpu(distributed.get_backend_config())
        yield group
        return
    on_gpus = torch.cuda.is_available() and distributed.is_nccl_available()
    if on_gpus and group.local_rank < torch.cuda.device_count():
        torch.cuda.set_device(group.local_rank)
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise ProcessError(f"torchrun: the processes cannot be connected: {reason_of(error)}") from error
    yield group
    # After an error other processes may wait for a message. Their end is left to torchrun then.
    distributed.destroy_process_group()


def _require_cpu(backends: str) -> None:
    """Refuse a process group of the script without a backend for CPUs, such as "cuda:nccl"."""
    if "cpu:" not in backends:
        raise ProcessError(
            f'torchrun: the process group of this script has the backend "{backends}", which reaches no '
            'CPU: begin it with torch.distributed.init_process_group("cpu:gloo,cuda:nccl").'
        )


def _packed(value: Any) -> bytes:
    try:
        return pickle.dumps(value)
    except Exception as error:  # a user's class may raise anything
        raise ProcessError(
            "torchrun: the model, its task or their settings cannot be sent to the other processes "
            f"({reason_of(error)}). Run the command in one process, without torchrun."
        ) from error


@contextlib.contextmanager
def _reaching_all() -> Iterator[None]:
    """Raise a LostProcessError if a message does not reach all processes."""
    try:
        yield
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        # NCCL names a cause. gloo's text is about sockets alone.
        cause = f" ({reason_of(error)})" if isinstance(error, distributed.DistBackendError) else ""
        raise LostProcessError(
            f"torchrun: another process of this training is gone{cause}. Run the same command again: it goes "
            "on after the last epoch."
        ) from error
