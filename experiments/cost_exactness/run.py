"""Claim: MACs and parameters predicted from widths equal those counted on the rebuilt model, exactly.

For every classifier of torchvision and of the zoo, at 20 random plans each, counted on the meta device:

    python -m experiments.cost_exactness.run [MODEL ...]

Writes a row a model to results.csv as it comes, and skips the models that have one.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import torch
import torchvision  # type: ignore[import-untyped]  # ships no types
from torch.utils.flop_counter import FlopCounterMode

from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild
from autoprune.tracing import trace
from experiments.common import OWN, append_row, build, rows_of

PLANS = 20
RESULTS = Path(__file__).with_name("results.csv")


def main() -> None:
    names = sys.argv[1:] or [
        *(f"autoprune/{name}" for name in OWN),
        *torchvision.models.list_models(module=torchvision.models),
    ]
    done = {row["model"] for row in rows_of(RESULTS)}
    for name in names:
        if name not in done:
            append_row(RESULTS, measure(name))


def measure(name: str) -> dict[str, object]:
    start = time.perf_counter()
    model, example = build(name)
    prunable = trace(model, example)
    equal = sum(is_exact(prunable, seed, tuple(example.shape)) for seed in range(PLANS))
    dense = prunable.cost()
    return {
        "model": name,
        "groups": len(prunable.groups),
        "free_groups": len(prunable.searchable),
        "free_channels": sum(group.width for group in prunable.searchable),
        "dense_macs": dense.macs,
        "dense_params": dense.params,
        "plans": PLANS,
        "equal": equal,
        "seconds": round(time.perf_counter() - start, 1),
    }


def is_exact(prunable: Prunable, seed: int, shape: tuple[int, ...]) -> bool:
    rng = np.random.default_rng(seed)
    plan = Plan(
        {g.name: rng.permutation(g.width)[: rng.integers(1, g.width + 1)] for g in prunable.searchable}
    )
    small = rebuild(prunable, plan).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        small(torch.empty(shape, device="meta"))
    counted = counter.get_total_flops() // 2, sum(p.numel() for p in small.parameters())
    predicted = prunable.cost(plan.widths)
    return (predicted.macs, predicted.params) == counted


if __name__ == "__main__":
    main()
