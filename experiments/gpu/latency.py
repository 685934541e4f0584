"""The three CUDA probes on dense nets and on nets with half of their channels, with intervals.

    python -m experiments.gpu.latency [--device cuda] [--tiny]

The eager probe replays a CUDA graph. graphs.csv compares it with the same forward pass without a graph. Their
ratio is 1 if the device is busy all the time, and above 1 if launches take longer than kernels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from autoprune.criteria import make_plan
from autoprune.graph.capture import call
from autoprune.latency import LatencySetting, Measurement, Ratio, side_by_side, time_interleaved
from autoprune.latency.probes.eager import eager_timed, events_timed, wall_timed
from autoprune.latency.timing import placed_copy, random_inputs
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from experiments.gpu.common import Bench, bench_of, net_of

NETS = ("resnet50", "mobilenet_v3_large", "autoprune/resnet20")
PROBES = ("eager", "onnx", "compile")  # compile takes longest and comes last
BATCHES = (1, 32)
COLUMNS = (
    *("half_ms", "half_low", "half_high", "dense_ms", "dense_low", "dense_high"),
    *("ratio", "ratio_low", "ratio_high", "tight", "seconds", "failure"),
)
PLAIN = (
    *("graph_ms", "graph_low", "graph_high", "plain_ms", "plain_low", "plain_high"),
    *("plain_to_graph", "plain_to_graph_low", "plain_to_graph_high", "tight", "failure"),
)


def main() -> None:
    bench = bench_of("latency")
    plain = replace(bench, step="graphs")
    nets = {}
    for name in NETS[:1] if bench.tiny else NETS:
        model, example = net_of(name, tiny=bench.tiny)
        prunable = trace(model, example)
        nets[name] = (model, rebuild(prunable, make_plan(prunable, 0.5)), example)
    cases = [(probe, name, batch) for probe in PROBES for batch in BATCHES for name in nets]
    for probe, name, batch in cases[:1] if bench.tiny else cases:
        dense, half, example = nets[name]
        setting = LatencySetting(probe, device=bench.device, batch=batch)
        for dtype in ("float32", "float16") if bench.on_cuda and probe == "eager" else ("float32",):
            setting = replace(setting, dtype=dtype, channels_last=dtype == "float16")
            known = {"probe": probe, "net": name, "batch": batch, "dtype": dtype}
            bench.attempt(known, COLUMNS, partial(compared, bench, dense, half, example, setting))
            if probe == "eager":
                plain.attempt(known, PLAIN, partial(against_plain, bench, half, example, setting))


def compared(
    bench: Bench, dense: nn.Module, half: nn.Module, example: Tensor, setting: LatencySetting
) -> dict[str, object]:
    found: list[tuple[Measurement, Measurement, Ratio]] = []

    def work() -> None:
        with side_by_side(dense, example, setting, limit_seconds=limit(bench)) as measure:
            found.append(measure(half))

    seconds = bench.timed(work)
    small, whole, ratio = found[0]
    return {
        **columns("half", small),
        **columns("dense", whole),
        **of_ratio("ratio", ratio),
        "tight": ratio.tight,
        "seconds": round(seconds, 1),
    }


def against_plain(
    bench: Bench, model: nn.Module, example: Tensor, setting: LatencySetting
) -> dict[str, object]:
    """Time a forward pass as the eager probe does, and without a CUDA graph."""
    placed, inputs = placed_copy(model, setting), random_inputs(example, setting)

    def run() -> object:
        return call(placed, inputs)

    with torch.inference_mode():
        run()
    plain = events_timed(run, setting) if bench.on_cuda else wall_timed(run, setting)
    timings = time_interleaved(
        {"plain": plain, "graph": eager_timed(run, setting)},
        baseline="graph",
        tolerance=0.02,
        limit_seconds=limit(bench),
    )
    ratio = timings.ratios["plain"]
    return {
        **columns("graph", timings.measurements["graph"]),
        **columns("plain", timings.measurements["plain"]),
        **of_ratio("plain_to_graph", ratio),
        "tight": ratio.tight,
    }


def limit(bench: Bench) -> float:
    return 0.3 if bench.tiny else 2.0


def columns(name: str, measured: Measurement) -> dict[str, object]:
    low, high = (round(value, 4) for value in measured.interval_ms)
    return {f"{name}_ms": round(measured.median_ms, 4), f"{name}_low": low, f"{name}_high": high}


def of_ratio(name: str, ratio: Ratio) -> dict[str, object]:
    low, high = (round(value, 4) for value in ratio.interval)
    return {name: round(ratio.ratio, 4), f"{name}_low": low, f"{name}_high": high}


if __name__ == "__main__":
    main()
