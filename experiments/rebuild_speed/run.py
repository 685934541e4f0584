"""How fast are rebuilds, traces, costs and proposals, as ratios in one run.

    python -m experiments.rebuild_speed.run             # all parts, or some: ... run copy tracing
    python -m experiments.rebuild_speed.summarise       # then: table.md and the plots

Every model runs in a process of its own, on one thread. Steps that are compared are timed in turn, in rounds.

copy      rebuild at half the width of every group, and copy.deepcopy of the dense model. The peak of resident
          memory while the first rebuild runs, over that of the dense and the small model together
pruning   rebuild, and the steps of Torch-Pruning for each candidate: deepcopy, dependency graph, pruning
          by half. Once with channels unranked on both sides, once ranked by their L1 norm: there for each
          candidate, here once for the dense model
tracing   autoprune.trace, and torch.export alone, of nets of growing depth
costs     costs in a matrix of 10,000 candidates, and decode in a batch of 1,000 at half the MACs
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from experiments.common import append_row, rows_of
from experiments.rebuild_speed.measure import costs, rebuild_against_copy, rebuild_against_pruning, tracing

Row = dict[str, object]

SHARED = ["resnet18", "resnet50", "vgg16_bn", "mobilenet_v3_large", "densenet121", "densenet201"]
SHARED += ["efficientnet_b0", "regnet_y_400mf", "convnext_tiny"]
OWN = [f"autoprune/{name}" for name in ("resnet20", "resnet56", "vgg16_bn", "densenet40")]
OTHERS = ["vit_b_16", "swin_t", "inception_v3", "shufflenet_v2_x1_0", "mobilenet_v3_small"]
DEPTHS = [*(f"resnet-{depth}" for depth in (20, 56, 110, 218, 434))]
DEPTHS += [f"densenet-{depth}" for depth in (40, 100, 190)]

PARTS: dict[str, tuple[Callable[[str], Row], list[str]]] = {
    "copy": (rebuild_against_copy, [*SHARED, *OTHERS, *OWN]),
    "pruning": (rebuild_against_pruning, SHARED),
    "tracing": (tracing, DEPTHS),
    "costs": (costs, [*SHARED, *OTHERS[-1:], *OWN]),
}


def main() -> None:
    os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # the children's
    for part in sys.argv[1:] or PARTS:
        measure, names = PARTS[part]
        path = Path(__file__).with_name(f"{part}.csv")
        done = {row["model"] for row in rows_of(path)}
        for name in names:
            if name not in done:
                append_row(path, apart(measure, name))


def apart(measure: Callable[[str], Row], name: str) -> Row:
    """Measure in a fresh process: no heap, cache or garbage of the model before."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, name).result()


if __name__ == "__main__":
    main()
