"""Claim: the error library of a large net takes a minute or two, a plan for any budget under a second.

    python -m experiments.repair.library

Moments of random images, the error curve of every group at every width (channels by elimination, and again in
the order that it gave, as a search has one from its criterion), and then the widths of least error under
several budgets of MACs, with every width allowed and with multiples of 8. Weights are random, so the errors
say nothing about trained nets. Processor seconds, one thread. Appends a row to library.csv as it comes, and
goes on after those there.
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch

import autoprune
from autoprune.flow import least_error
from autoprune.graph import Prunable
from autoprune.reconstruction import ErrorLibrary, error_library, moments
from autoprune.space import Budget, SpaceSpec, build_space
from autoprune.support.arrays import IntArray
from experiments.common import append_row, build, rows_of

NETS = ("resnet50", "mobilenet_v3_large")
IMAGES = 8
BUDGETS = (0.75, 0.5, 0.25, 0.12)
DIVISORS = (8, 1)
RESULTS = Path(__file__).with_name("library.csv")


def main() -> None:
    torch.set_num_threads(1)
    done = {row["net"] for row in rows_of(RESULTS)}
    for net in NETS:
        if net in done:
            continue
        torch.manual_seed(0)
        model, example = build(net)
        prunable = autoprune.trace(model.eval(), example)
        started = time.process_time()
        measured = moments(prunable, [torch.randn(IMAGES, *example.shape[1:])])
        moments_s = time.process_time() - started
        started = time.process_time()
        library = error_library(prunable.model, prunable.searchable, measured)
        row = {
            "net": net,
            "groups": len(library.curves),
            "estimated": len(library.estimated),
            "widest": max(curve.width for curve in library.curves.values()),
            "moments_s": round(moments_s, 1),
            "library_s": round(time.process_time() - started, 1),
        }
        started = time.process_time()
        error_library(prunable.model, prunable.searchable, measured, orders=orders_of(library))
        row["known_order_s"] = round(time.process_time() - started, 1)
        for divisor in DIVISORS:
            slowest, lowest = 0.0, 1.0
            for budget in BUDGETS:
                seconds, usage = plan(prunable, library, budget, divisor)
                slowest, lowest = max(slowest, seconds), min(lowest, usage)
            row |= {f"plan_s_{divisor}": round(slowest, 2), f"usage_{divisor}": round(lowest, 4)}
        append_row(RESULTS, row)


def orders_of(library: ErrorLibrary) -> dict[str, IntArray]:
    """Return the order of each group's channels. Any order takes as long."""
    return {
        name: np.arange(curve.width) if curve.order is None else curve.order
        for name, curve in library.curves.items()
    }


def plan(prunable: Prunable, library: ErrorLibrary, budget: float, divisor: int) -> tuple[float, float]:
    """Return the processor seconds that the widths of least error take, and the share of the budget used."""
    limit = Budget(macs=int(budget * int(prunable.cost().macs)))
    space = build_space(prunable.groups, prunable.cost, limit, SpaceSpec(divisor=divisor, low=0.05))
    started = time.process_time()
    levels = least_error(space, library)
    widths = space.decode(space.ladder.ratios(levels[None])[0])
    return time.process_time() - started, float(np.asarray(space.usage(widths))[0])


if __name__ == "__main__":
    main()
