"""Rebuild, moments and both repairs on the device: seconds, memory, agreement with float64 on the CPU.

    python -m experiments.gpu.repair [--device cuda] [--tiny]

Half of the channels of each group are kept. The nets have random weights and settled BatchNorm statistics, so
the figures are about time and agreement, not about accuracy. A difference is max|a - b| / max|b| of the
outputs for images that no repair has seen, where b is of the net that was repaired in float64 on the CPU. The
differences of the repair in float32 on the CPU show how much of it float32 alone causes.
"""

from __future__ import annotations

import copy
import itertools
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.criteria import make_plan
from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import Repaired, moments, repair_closed, repair_sequential
from autoprune.tracing import trace
from experiments.gpu.common import Bench, bench_of, images_like, net_of, settle_norms

NETS = ("resnet50", "mobilenet_v3_large")
BATCH = 16
COLUMNS = (
    *("trace_s", "rebuild_ms", "moments_images", "moments_s", "moments_peak_mib"),
    *("closed_first_s", "closed_s", "closed_peak_mib", "sequential_images", "sequential_s"),
    *("sequential_peak_mib", "closed_difference", "sequential_difference"),
    *("closed_difference_float32_cpu", "sequential_difference_float32_cpu", "failure"),
)


@dataclass(frozen=True)
class Sizes:
    """Numbers of images: those that are timed, those whose repairs are compared, and those compared on."""

    timed: int = 512
    compared: int = 32
    shown: int = 16


def main() -> None:
    bench = bench_of("repair")
    sizes = Sizes(2 * BATCH, BATCH, 8) if bench.tiny else Sizes()
    for name in NETS[:1] if bench.tiny else NETS:
        bench.attempt({"net": name}, COLUMNS, partial(measured, bench, name, sizes))


def measured(bench: Bench, name: str, sizes: Sizes) -> dict[str, object]:
    model, example = net_of(name, tiny=bench.tiny)
    settle_norms(model, images_like(example, 2, BATCH, seed=1))
    kept: list[Prunable] = []
    trace_s = bench.timed(lambda: kept.append(trace(model, example)))
    prunable = kept[0]
    plan = make_plan(prunable, 0.5)
    found = expected(model, example, plan, sizes)
    prunable.model.to(bench.device)
    row: dict[str, object] = {"trace_s": round(trace_s, 2), **times(bench, prunable, plan, example, sizes)}
    images = list(images_like(example, sizes.compared // BATCH, BATCH))
    for kind, repaired in repairs(prunable, plan, images).items():
        outputs = outputs_of(repaired.model, example, sizes)
        row[f"{kind}_difference"] = difference(outputs, found[f"{kind}_float64"])
        row[f"{kind}_difference_float32_cpu"] = difference(found[f"{kind}_float32"], found[f"{kind}_float64"])
    return row


def times(bench: Bench, prunable: Prunable, plan: Plan, example: Tensor, sizes: Sizes) -> dict[str, object]:
    """Time each part on the device. The images are there already."""
    rebuild(prunable, plan)  # the first call loads libraries, which is not timed
    rebuilt = [bench.timed(lambda: rebuild(prunable, plan)) for _ in range(5)]
    batches = [each.to(bench.device) for each in images_like(example, sizes.timed // BATCH, BATCH)]
    bench.reset_peak()
    seconds = bench.timed(lambda: moments(prunable, batches, images=sizes.timed))
    row: dict[str, object] = {
        "rebuild_ms": round(1000 * statistics.median(rebuilt), 1),
        "moments_images": sizes.timed,
        "moments_s": round(seconds, 2),
        "moments_peak_mib": bench.peak_mib(),
    }
    small, known = rebuild(prunable, plan), moments(prunable, batches, images=sizes.timed)
    bench.reset_peak()
    closed = [bench.timed(partial(repair_closed, prunable, plan, small, known)) for _ in range(4)]
    row |= {
        "closed_first_s": round(closed[0], 2),
        "closed_s": round(statistics.median(closed[1:]), 3),
        "closed_peak_mib": bench.peak_mib(),
        "sequential_images": 4 * BATCH,
    }
    del known
    bench.reset_peak()
    seconds = bench.timed(lambda: repair_sequential(prunable, plan, small, batches, images=4 * BATCH))
    return {**row, "sequential_s": round(seconds, 2), "sequential_peak_mib": bench.peak_mib()}


def expected(model: nn.Module, example: Tensor, plan: Plan, sizes: Sizes) -> dict[str, Tensor]:
    """Return the outputs of both repairs in float64 and in float32 on the CPU."""
    found = {}
    for dtype, convert in (("float64", torch.Tensor.double), ("float32", torch.Tensor.float)):
        precise = trace(converted(model, convert), convert(example))
        images = [convert(each) for each in images_like(example, sizes.compared // BATCH, BATCH)]
        for kind, repaired in repairs(precise, plan, images).items():
            found[f"{kind}_{dtype}"] = outputs_of(repaired.model, example, sizes)
    return found


def converted(model: nn.Module, convert: Callable[[Tensor], Tensor]) -> nn.Module:
    copied = copy.deepcopy(model)
    return copied.double() if convert is torch.Tensor.double else copied.float()


def repairs(prunable: Prunable, plan: Plan, images: list[Tensor]) -> dict[str, Repaired]:
    count = sum(map(len, images))
    small = rebuild(prunable, plan)
    return {
        "closed": repair_closed(prunable, plan, small, moments(prunable, images, images=count)),
        "sequential": repair_sequential(prunable, plan, small, images, images=count),
    }


def outputs_of(model: nn.Module, example: Tensor, sizes: Sizes) -> Tensor:
    """Return the outputs for images that no repair has seen, in float64 on the CPU."""
    (images,) = itertools.islice(images_like(example, 1, sizes.shown, seed=2), 1)
    with torch.no_grad():
        outputs: Tensor = copy.deepcopy(model).cpu().double().eval()(images.double())
    return outputs


def difference(found: Tensor, wanted: Tensor) -> float:
    return float(f"{float((found - wanted).abs().max() / wanted.abs().max()):.2e}")


if __name__ == "__main__":
    main()
