"""How fast are costs, proposals and rebuilds, as ratios in one run.

    python -m experiments.speed.run

Costs: candidates a second in a matrix of 10,000. Proposals: milliseconds of `decode` each, in a batch of
1,000 at half the MACs. Rebuilds: at half the width of every group, against `copy.deepcopy` of the dense
model in turn with it; medians of 9, with the quartiles of the ratio.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.stats import gmean

from autoprune.criteria import make_plan
from autoprune.graph import Prunable
from autoprune.rebuild import rebuild
from autoprune.space import Budget, build_space
from autoprune.tracing import trace
from experiments.common import append_row, build, rows_of

MODELS = [
    *("autoprune/resnet20", "autoprune/resnet56", "autoprune/vgg16_bn", "autoprune/densenet40"),
    *("mobilenet_v3_small", "resnet18", "resnet50", "densenet121", "vgg16_bn", "convnext_tiny"),
]
ROUNDS = 9
RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    done = {row["model"] for row in rows_of(RESULTS)}
    for name in MODELS:
        if name not in done:
            model, example = build(name)
            start = time.perf_counter()
            prunable = trace(model, example)
            append_row(RESULTS, measure(name, prunable, time.perf_counter() - start))
    ratios = [float(row["rebuild_ratio"]) for row in rows_of(RESULTS)]
    print(f"rebuild / deepcopy: geometric mean {gmean(ratios):.2f}, worst {max(ratios):.2f}")


def measure(name: str, prunable: Prunable, trace_seconds: float) -> dict[str, object]:
    full = np.array([group.width for group in prunable.groups])
    free = np.array([group.frozen is None for group in prunable.groups])
    rng = np.random.default_rng(0)
    candidates = np.where(free, rng.integers(1, full + 1, (10_000, len(full))), full)
    costs = sorted(seconds(lambda: prunable.cost(candidates)) for _ in range(ROUNDS))[ROUNDS // 2]
    space = build_space(prunable.groups, prunable.cost, Budget(macs=int(prunable.cost().macs) // 2))
    ratios = rng.uniform(0.1, 1.0, (1000, len(space.variables)))
    decodes = sorted(seconds(lambda: space.decode(ratios)) for _ in range(3))[1]
    plan = make_plan(prunable, 0.5)
    copies, rebuilds = [], []
    for _ in range(ROUNDS):
        copies.append(seconds(lambda: copy.deepcopy(prunable.model)))
        rebuilds.append(seconds(lambda: rebuild(prunable, plan)))
    ratio = np.array(rebuilds) / np.array(copies)
    return {
        "model": name,
        "trace_seconds": round(trace_seconds, 2),
        "costs_per_second": round(10_000 / costs),
        "decode_ms_each": round(decodes, 3),
        "rebuild_ms": round(float(np.median(rebuilds)) * 1000, 2),
        "deepcopy_ms": round(float(np.median(copies)) * 1000, 2),
        "rebuild_ratio": round(float(np.median(ratio)), 3),
        "ratio_quartiles": " to ".join(f"{value:.2f}" for value in np.quantile(ratio, (0.25, 0.75))),
    }


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
