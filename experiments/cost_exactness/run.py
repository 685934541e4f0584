"""Claim: MACs and parameters predicted from widths equal those counted on the rebuilt model, exactly.

For every classifier of torchvision and of the zoo, at 20 random plans each, counted on the meta device:

    python experiments/cost_exactness/run.py [MODEL ...]

Writes a row a model to results.csv as it comes, and skips the models that have one.
"""

from __future__ import annotations

import csv
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import get_model, list_models

import torchvision
from autoprune.graph import Plan, Prunable
from autoprune.rebuild import rebuild
from autoprune.tracing import trace
from autoprune.zoo import make_model

PLANS = 20
RESULTS = Path(__file__).with_name("results.csv")
FIELDS = ("model", "groups", "free_groups", "free_channels", "dense_macs", "dense_params", "plans", "equal", "seconds")
OWN = {"resnet20": 1, "resnet56": 3, "vgg16_bn": 3, "densenet40": 3}
"""Models of the zoo, by their input channels, at 28 or 32 pixels."""


def main() -> None:
    """Measure what is asked for and not yet measured."""
    classifiers = list_models(module=torchvision.models)
    names = sys.argv[1:] or [*(f"autoprune/{name}" for name in OWN), *classifiers]
    done = {row["model"] for row in csv.DictReader(RESULTS.open())} if RESULTS.exists() else set()
    for name in names:
        if name not in done:
            append(measure(name))


def measure(name: str) -> dict[str, object]:
    start = time.perf_counter()
    model, size, channels = make(name)
    prunable = trace(model, torch.zeros(1, channels, size, size))
    equal = sum(is_exact(prunable, seed, (1, channels, size, size)) for seed in range(PLANS))
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


def make(name: str) -> tuple[nn.Module, int, int]:
    """Return a model, its image size and its input channels."""
    if name.startswith("autoprune/"):
        own = name.removeprefix("autoprune/")
        return make_model(own, 10, OWN[own]), 28 if OWN[own] == 1 else 32, OWN[own]
    # The truncated normal initialisation of these two takes minutes.
    slow = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    return get_model(name, weights=None, **slow), 299 if name == "inception_v3" else 224, 3


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


def append(row: dict[str, object]) -> None:
    new = not RESULTS.exists()
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        if new:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


if __name__ == "__main__":
    main()
