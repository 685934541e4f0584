"""What the steps share: their arguments, rows that are written as they come, a clock, the peak of memory."""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.errors import summary_of
from experiments.common import append_row, build

HERE = Path(__file__).parent

LEAST_S = 3.0
"""A measurement that has less than this is not begun."""


@dataclass(frozen=True)
class Bench:
    """The arguments of a step.

    Attributes:
        step: its name, that of its file and of its table.
        device: torch's name of the device.
        tiny: whether tiny nets and few repeats are to show only that the step runs.
        output: the folder of the tables.
        seconds: how long the step may take.
        began: the time at which it began.
    """

    step: str
    device: str
    tiny: bool
    output: Path
    seconds: float
    began: float

    @property
    def on_cuda(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.startswith("cuda")

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.began + self.seconds - time.monotonic()

    def write(self, row: dict[str, object]) -> None:
        """Append a row to the table of the step."""
        append_row(self.output / f"{self.step}.csv", row)

    def attempt(self, known: dict[str, object], columns: tuple[str, ...], work: Work) -> None:
        """Do a measurement and write its row, or the reason why it failed. The step goes on in both cases.

        Args:
            known: the columns that describe the case.
            columns: the columns that `work` fills, which stay empty if it fails.
            work: returns their values.
        """
        empty: dict[str, object] = dict.fromkeys(columns, "")
        try:
            if self.left < LEAST_S:
                raise TimeoutError("no time was left")
            found, failure = work(), ""
        except Exception as error:  # a failure is a result, and the next case may work
            found, failure = {}, summary_of(error)
        self.write({**known, **empty, **found, "failure": failure})
        if self.on_cuda:
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the device, without which its clock would time the launches alone."""
        if self.on_cuda:
            torch.cuda.synchronize(self.device)

    def timed(self, work: Callable[[], object]) -> float:
        """Return the seconds of some work, with its end on the device."""
        self.synchronize()
        started = time.perf_counter()
        result = work()
        self.synchronize()
        seconds = time.perf_counter() - started
        del result
        return seconds

    def reset_peak(self) -> None:
        """Count the peak of memory from now on."""
        if self.on_cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_mib(self) -> int | str:
        """Return the most memory that tensors had on the device since `reset_peak`."""
        return torch.cuda.max_memory_allocated(self.device) >> 20 if self.on_cuda else ""


Work = Callable[[], dict[str, object]]


def bench_of(step: str) -> Bench:
    """Parse the arguments of a step, which are also those of `run`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--output", type=Path, default=HERE)
    parser.add_argument("--seconds", type=float, default=120.0)
    given = parser.parse_args()
    if given.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit(f"--device {given.device}: torch sees no CUDA device here")
    torch.manual_seed(0)
    return Bench(step, given.device, given.tiny, given.output, given.seconds, time.monotonic())


def net_of(name: str, *, tiny: bool) -> tuple[nn.Module, Tensor]:
    """Return a net in eval mode with an example input, or a tiny net in its place."""
    if not tiny:
        model, example = build(name)
        return model.eval(), example
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)),
    )
    return model.eval(), torch.zeros(1, 3, 16, 16)


def images_like(example: Tensor, batches: int, batch: int, *, seed: int = 0) -> Iterator[Tensor]:
    """Yield batches of random images, smooth on the scale of 8 pixels, on the CPU."""
    generator = torch.Generator().manual_seed(seed)
    _, channels, height, width = example.shape
    for _ in range(batches):
        coarse = torch.randn(batch, channels, height // 8, width // 8, generator=generator)
        fine = torch.randn(batch, channels, height, width, generator=generator)
        yield torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * fine


def settle_norms(model: nn.Module, images: Iterator[Tensor]) -> None:
    """Measure the statistics of BatchNorm, without which random weights give outputs of any scale."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in itertools.islice(images, 2):
            model(batch)
    model.eval()
