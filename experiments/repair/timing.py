"""Claim: at 224 px moments take minutes once a net, and the closed repair of a candidate half a second.

    python -m experiments.repair.timing

Random weights and 512 random images, 16 at a time, on 2 threads: the figures are of seconds, memory and
residuals, not of accuracy. Each net is measured in a process of its own, whose peak memory is the kernel's
account of it. Tracing is included there. A candidate keeps about a share of the MACs in uniform widths, or
narrows one kind of group alone. Appends a row to timing.csv as it comes, and goes on after those there.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from autoprune.criteria import make_plan
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Moments, moments, repair_closed
from autoprune.tracing import trace
from experiments.common import append_row, build, rows_of

IMAGES, BATCH, THREADS = 512, 16, 2
RESULTS = Path(__file__).with_name("timing.csv")
REPEATS = 5


@dataclass(frozen=True)
class Case:
    """A net, and how its candidates are narrowed.

    Attributes:
        net: torchvision's name, or "timm/NAME".
        ratios: keep ratios. Each gives a candidate.
        only: parts of group names, one of which a group must hold to be narrowed. All groups if empty.
    """

    net: str
    ratios: tuple[float, ...]
    only: tuple[str, ...] = ()


CASES = (
    Case("resnet50", (0.86, 0.7, 0.5)),
    Case("mobilenet_v3_large", (0.86, 0.7, 0.5)),
    Case("vit_b_16", (0.75, 0.5), ("mlp",)),
    Case("timm/vit_base_patch16_224", (0.75, 0.5), ("attn",)),
    Case("vgg16", (0.7,)),
)


def main() -> None:
    done = {(row["net"], row["narrowed"]) for row in rows_of(RESULTS)}
    context = multiprocessing.get_context("spawn")
    for case in CASES:
        if (case.net, narrowed(case)) not in done:
            process = context.Process(target=measure, args=(case,))
            process.start()
            process.join()
            if process.exitcode:
                raise SystemExit(f"{case.net}: the process that measures it ended with {process.exitcode}")


def narrowed(case: Case) -> str:
    return " ".join(case.only) or "all"


def measure(case: Case) -> None:
    """Measure one net and append its rows, all at once."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    model, example = build(case.net)
    prunable = trace(model.eval(), example)
    before = peak_mib()
    started, processor = time.perf_counter(), time.process_time()
    measured = moments(prunable, random_images(example), images=IMAGES)
    common: dict[str, object] = {
        "net": case.net,
        "narrowed": narrowed(case),
        "moments_s": round(time.perf_counter() - started, 1),
        "moments_cpu_s": round(time.process_time() - processor, 1),
        "moments_mib": sum(layer.second.nbytes for layer in measured.layers.values()) >> 20,
        "peak_mib_before": before,
        "peak_mib": peak_mib(),
        "pooled": sum(layer.span > 1 for layer in measured.layers.values()),
        "left_out": sum("limit" in reason for reason in measured.left_out.values()),
    }
    for row in list(candidates(case, prunable, measured)):
        append_row(
            RESULTS, {**common, **row, "peak_mib_repair": peak_mib(), "load": round(os.getloadavg()[0], 1)}
        )


def candidates(case: Case, prunable: Prunable, measured: Moments) -> Iterator[dict[str, object]]:
    """Repair a candidate of each keep ratio, several times. The first time of all is apart."""
    for ratio in case.ratios:
        plan = plan_of(case, prunable, ratio)
        small = rebuild(prunable, plan)
        seconds, processor = [], []
        for _ in range(REPEATS):
            started, cpu = time.perf_counter(), time.process_time()
            repaired = repair_closed(prunable, plan, small, measured)
            seconds.append(time.perf_counter() - started)
            processor.append(time.process_time() - cpu)
        errors = list(repaired.errors.values())
        share = float(prunable.cost(plan.widths).one().macs / prunable.cost().one().macs)
        yield {
            "ratio": ratio,
            "macs": round(share, 3),
            "first_s": round(seconds[0], 2),
            "closed_s": round(statistics.median(seconds[1:]), 2),
            "closed_fastest_s": round(min(seconds), 2),
            "closed_cpu_s": round(statistics.median(processor[1:]), 2),
            "layers": len(errors),
            "left": len(repaired.left),
            "residual_median": round(statistics.median(errors), 3),
            "residual_worst": round(max(errors), 3),
        }


def plan_of(case: Case, prunable: Prunable, ratio: float) -> Plan:
    """Keep a share of each group that the case narrows."""
    if not case.only:
        return make_plan(prunable, ratio)
    names = [group.name for group in prunable.groups if group.frozen is None]
    return make_plan(prunable, {name: ratio for name in names if any(part in name for part in case.only)})


def random_images(example: Tensor) -> Iterator[Tensor]:
    """Yield batches of random images, smooth on the scale of 8 pixels."""
    generator = torch.Generator().manual_seed(0)
    _, channels, height, width = example.shape
    for _ in range(IMAGES // BATCH):
        coarse = torch.randn(BATCH, channels, height // 8, width // 8, generator=generator)
        fine = torch.randn(BATCH, channels, height, width, generator=generator)
        yield torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") + 0.3 * fine


def peak_mib() -> int:
    """Return the most memory that this process has had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


if __name__ == "__main__":
    main()
