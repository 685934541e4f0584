"""Claim: at 50% of the FLOPs a latency-aware plan takes at most 0.85 of the latency of one ratio for all.

And it is faster than that ratio snapped to the runtime's divisor, and than a plan by importance alone. Four
plans of ResNet-50 and MobileNetV3-L at 224 px, all in [0.98, 1.00] of 50% of the FLOPs:

    uniform       one keep ratio for all groups
    snapped       the same in multiples of the divisor that the runtime's stairs ask for
    importance    the most l1 importance that the FLOPs carry (a knapsack), blind to latency
    aware         the least predicted latency among plans of these FLOPs in multiples of the divisor that keep
                  at least the importance of uniform: differential evolution over the table's predictions.
                  It has 0.995 of these FLOPs at least, since it would else gain by the window's width

Weights are random, as no accuracy is measured: the importance of a channel is its l1 norm over the mean of
its group. Dense model and plans are timed in turn in one run, at batch 1 on one thread.

    python -m experiments.latency.plans [--models resnet50] [--runtimes onnx eager]

Appends a row a plan to plans.csv. What is there is not measured again. Tables of latency are kept in tables/,
and measured where they are missing.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, differential_evolution

import autoprune
from autoprune.criteria import importance
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting, heavy_blocks, measure_stairs, prepare, time_interleaved
from autoprune.latency.table import LatencyPredictor, narrowed
from autoprune.space import (
    Budget,
    SearchSpace,
    SpaceSpec,
    build_space,
    channel_values,
    cut,
    knapsack,
    uniform_gates,
)
from experiments.common import append_row, build, rows_of
from experiments.latency.tables import predictor_of

HERE = Path(__file__).parent
RESULTS = HERE / "plans.csv"
MODELS = ("resnet50", "mobilenet_v3_large")
RUNTIMES = ("onnx", "eager")
SHARE = 0.5
LEAST_USED = 0.995
"""Of the budget, by the latency-aware plan."""

GENERATIONS, POPULATION = 2000, 4
"""Of the differential evolution. The population is a multiple of the number of groups. A minute."""

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    options = parser.parse_args()
    for model in options.models:
        for runtime in options.runtimes:
            if not any((row["model"], row["runtime"]) == (model, runtime) for row in rows_of(RESULTS)):
                for row in measure(model, runtime):
                    append_row(RESULTS, row)


def measure(name: str, runtime: str) -> list[dict[str, object]]:
    """Make the four plans of a model, and time them side by side with it."""
    model, example = build(name)
    model.eval()
    prunable = autoprune.trace(model, example)
    setting = LatencySetting(runtime)
    predict = predictor_of(name, prunable, setting)
    divisor = measure_stairs(heavy_blocks(model, example), setting).divisor
    worth = channel_worth(prunable)
    plans = make_plans(prunable, divisor, predict, worth)
    with contextlib.ExitStack() as stack:
        timed = {
            plan: stack.enter_context(prepare(narrowed(prunable, widths), example, setting))
            for plan, widths in plans.items()
        }
        timed["dense"] = stack.enter_context(prepare(model, example, setting))
        timings = time_interleaved(timed, baseline="dense", tolerance=0.005, limit_seconds=180.0)
    rows: list[dict[str, object]] = []
    for plan, widths in plans.items():
        ratio = timings.ratios[plan]
        cost = prunable.cost(widths[None])
        rows.append(
            {
                "model": name,
                "runtime": runtime,
                "plan": plan,
                "divisor": divisor,
                "flops_share": round(float(np.ravel(cost.macs)[0]) / int(prunable.cost().macs), 5),
                "importance": round(float(worth_of(worth, widths[None])[0]), 4),
                "ratio": round(ratio.ratio, 5),
                "low": round(ratio.interval[0], 5),
                "high": round(ratio.interval[1], 5),
                "predicted_ratio": round(float(predict.expected(widths[None])[0]) / predict.dense_ms, 5),
                "latency_ms": round(timings.measurements[plan].median_ms, 4),
                "dense_ms": round(timings.measurements["dense"].median_ms, 4),
            }
        )
    return rows


def make_plans(
    prunable: Prunable, divisor: int, predict: LatencyPredictor, worth: Mapping[int, FloatArray]
) -> dict[str, IntArray]:
    """Return {plan: widths [groups]}, all of which fill half of the FLOPs."""
    fine, coarse = space_of(prunable, 1), space_of(prunable, divisor)
    uniform = one_ratio(fine)
    scores = importance(prunable, "l1")
    by_variable = [
        [np.asarray(scores[name]) / np.mean(scores[name]) for name in variable.groups]
        for variable in fine.variables
    ]
    valued = knapsack(fine.ladder, channel_values(fine.ladder.rows, by_variable))
    return {
        "uniform": uniform,
        "snapped": one_ratio(coarse),
        "importance": fine.decode(fine.ladder.ratios(valued[None])[0]),
        "aware": fastest(coarse, predict, worth, float(worth_of(worth, uniform[None])[0])),
    }


def space_of(prunable: Prunable, divisor: int) -> SearchSpace:
    """Return the space of plans with half of the FLOPs."""
    budget = Budget(macs=int(SHARE * int(prunable.cost().macs)))
    return build_space(prunable.groups, prunable.cost, budget, SpaceSpec(divisor=divisor))


def one_ratio(space: SearchSpace) -> IntArray:
    """Return the widths [groups] of one keep ratio for all groups."""
    levels = cut(space.ladder, uniform_gates(space.ladder.rows))
    return space.decode(space.ladder.ratios(levels[None])[0])


def fastest(
    space: SearchSpace, predict: LatencyPredictor, worth: Mapping[int, FloatArray], least: float
) -> IntArray:
    """Return the widths [groups] of the least predicted latency that keep an importance of `least`.

    They use LEAST_USED of the budget, too, where the widths of the divisor allow that.
    """

    def loss(ratios: FloatArray) -> FloatArray:
        widths = space.decode(ratios.T)
        missing = np.maximum(1.0 - worth_of(worth, widths) / least, 0.0)
        missing += np.maximum(LEAST_USED - space.usage(widths), 0.0)
        return np.asarray(predict(widths) / predict.dense_ms + 10.0 * missing)

    found = differential_evolution(
        loss,  # type: ignore[arg-type]  # the stubs know no vectorized function
        Bounds(
            [variable.low for variable in space.variables], [variable.high for variable in space.variables]
        ),
        maxiter=GENERATIONS,
        popsize=POPULATION,
        rng=0,
        x0=space.encode(one_ratio(space)),
        vectorized=True,
        updating="deferred",
        polish=False,
        tol=0.0,  # otherwise it ends once its plans are alike, for ResNet-50 10% above the later best
    )
    fastest_widths: IntArray = space.decode(found.x)
    return fastest_widths


def channel_worth(prunable: Prunable) -> dict[int, FloatArray]:
    """Return {place of a group: importance [width + 1] of its best channels together}."""
    scores = importance(prunable, "l1")
    worth = {}
    for place, group in enumerate(prunable.groups):
        if group in prunable.searchable:
            descending = -np.sort(-np.asarray(scores[group.name], dtype=np.float64))
            worth[place] = np.concatenate([[0.0], np.cumsum(descending)]) / descending.mean()
    return worth


def worth_of(worth: Mapping[int, FloatArray], widths: IntArray) -> FloatArray:
    """Return the importance [n] that widths [n, groups] keep."""
    total: FloatArray = np.sum([values[widths[:, place]] for place, values in worth.items()], axis=0)
    return total


if __name__ == "__main__":
    main()
