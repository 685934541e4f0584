"""Claim: widths of least reconstruction error lose less accuracy before training than other allocations.

    python -m experiments.repair.widths

On Fashion-MNIST. Each warm start chooses widths under the budget, and OBS elimination the channels. The plan
is repaired in closed form and its BatchNorm recalibrated, then scored on the validation part. 512
unlabelled training images, float32, one thread, one run each. Appends a row to widths.csv as it comes, and
goes on after those there.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from autoprune import run
from autoprune.config import load_config
from autoprune.criteria import Importance, importance, plan_from_importance
from autoprune.rebuilding import rebuild
from autoprune.reconstruction import moments, repair
from autoprune.run._measuring.heuristics import WARM_STARTS, Proposer
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.problem import build_problem
from autoprune.run._resolving.resolve import trace_run
from experiments.common import append_row, rows_of
from experiments.repair.accuracy import IMAGES, NETS, SETTING, images_of, score

BUDGETS = ("50%", "25%", "12%")
ALLOCATIONS = {
    "resnet20": ("uniform", "taylor-knapsack", "sensitivity", "reconstruction"),
    "mobilenet_v3_small": ("uniform", "reconstruction"),
}
RESULTS = Path(__file__).with_name("widths.csv")


def main() -> None:
    torch.set_num_threads(SETTING.threads)
    done = {(row["net"], row["flops"], row["widths"]) for row in rows_of(RESULTS)}
    for net, names in ALLOCATIONS.items():
        asked = [(budget, name) for budget in BUDGETS for name in names]
        left = [each for each in asked if (net, *each) not in done]
        if left:
            measure(net, left)


def measure(net: str, left: Sequence[tuple[str, str]]) -> None:
    """Append a row for each (budget, warm start) of a net."""
    config = run.settle(load_config(NETS[net]))
    dense = load_dense(config)
    traced = trace_run(dense, config, SETTING)
    prunable = traced.prunable
    batches = images_of(dense)
    measured = moments(prunable, batches, images=IMAGES)
    ranked: Importance = importance(prunable, "obs", batches, moments=lambda: measured)
    context = MeasurementContext(traced, ranked, moments=lambda: measured)
    whole = Proposer(context, traced.space)
    library = whole.library()
    for budget, name in left:
        posed = build_problem(prunable, replace(config, budget=replace(config.budget, **{"flops": budget})))
        given = replace(whole, space=posed.space)  # the measurements hold under every budget
        started = time.process_time()
        levels = WARM_STARTS[name].propose(given)
        seconds = time.process_time() - started
        widths = given.space.decode(given.space.ladder.ratios(levels[None])[0])
        named = dict(zip(given.space.groups, map(int, widths), strict=True))
        plan = plan_from_importance(prunable, named, ranked)
        model = repair(prunable, plan, rebuild(prunable, plan), measured)
        row = {
            "net": net,
            "flops": budget,
            "widths": name,
            "usage": round(float(np.asarray(given.space.usage(widths))[0]), 4),
            "error": round(library.total({group: named[group] for group in library.curves}), 3),
            "accuracy": score(dense, model, calibrated=True),
            "seconds": round(seconds, 1),
        }
        append_row(RESULTS, row)


if __name__ == "__main__":
    main()
