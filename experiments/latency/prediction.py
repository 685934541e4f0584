"""Claim: the latency of unseen candidates is predicted with a mean absolute error of at most 5%.

In ONNX Runtime and eager PyTorch on the CPU, at batch 1 and 32, always on one thread. ResNet-20 at 28 px,
ResNet-50 and MobileNetV3-L at 224 px. 30 candidates each: keep ratios drawn for each group from [0.1, 1], in
every other candidate rounded to multiples of 8. The table was fitted without them. Each is exported or
rebuilt as a user would do it. All are timed in turn with the dense model, over minutes: a busy machine slows
narrow models more than wide ones, so a ratio uses the rounds in which both ran fast. Milliseconds are this
ratio times the dense model's milliseconds in the table, so that a change of the machine's speed since the
table cancels out.

Weights are random, as latency does not depend on them. BatchNorms get random scales and shifts, which keep
activations of narrow random networks from vanishing into slow denormal numbers.

    python -m experiments.latency.prediction [--models resnet50] [--batches 1] [--seconds 180]

Appends the rows of a model, runtime and batch to prediction.csv, unless they are there. Tables are kept in
tables/, and measured if they are missing. If the machine was so busy that half of the ratios' intervals are
wider than the claimed error to either side, rows and table are thrown away, however small the errors are.
More seconds make the intervals narrower.
`python -m experiments.latency.summarise` sums up and draws.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import autoprune
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting, prepare, time_interleaved
from autoprune.latency.table import narrowed
from autoprune.latency.timing._measurement import is_tight
from experiments.common import append_row, build, rows_of
from experiments.latency.tables import path_of, predictor_of

RESULTS = Path(__file__).parent / "prediction.csv"
MODELS = ("autoprune/resnet20", "mobilenet_v3_large", "resnet50")
RUNTIMES = ("onnx", "eager")
BATCHES = (1, 32)
CANDIDATES = 30
DIVISORS = (1, 8)
LOWEST = 0.1
DENSE = -1
"""The dense model's number among the candidates."""

BUSY = 0.05
"""Half-width of the ratios' intervals, as a share, above which they could not tell an error of 5%."""

IntArray = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), choices=BATCHES)
    parser.add_argument(
        "--seconds",
        type=float,
        default=180.0,
        help="that the candidates are timed for at most, together, if six rounds are done by then",
    )
    options = parser.parse_args()
    done = {(row["model"], row["runtime"], int(row["batch"])) for row in rows_of(RESULTS)}
    for name, runtime, batch in itertools.product(options.models, options.runtimes, options.batches):
        if (name, runtime, batch) not in done:
            measure(name, LatencySetting(runtime, batch=batch), options.seconds)


def measure(name: str, setting: LatencySetting, seconds: float) -> None:
    """Predict and time the candidates of one model under one setting."""
    model, example = prepared(name)
    prunable = autoprune.trace(model, example)
    predict = predictor_of(name, prunable, setting)
    widths = np.stack([draw_widths(prunable, number, setting.batch) for number in range(CANDIDATES)])
    with contextlib.ExitStack() as stack:
        timed = {DENSE: stack.enter_context(prepare(model, example, setting))}
        for number, row in enumerate(widths):
            timed[number] = stack.enter_context(prepare(narrowed(prunable, row), example, setting))
        timings = time_interleaved(timed, baseline=DENSE, tolerance=0.005, limit_seconds=seconds)
    tight = [is_tight(ratio.ratio, ratio.interval, BUSY) for ratio in timings.ratios.values()]
    if sum(tight) <= len(tight) / 2:
        path_of(name, setting).unlink()  # it was measured in the same minutes
        print(
            f"{name}, {setting}: the machine was busy, {sum(tight)} of {len(tight)} ratios are known within "
            f"{BUSY:.0%}, nothing is kept; run it again"
        )
        return
    expected, monotone = predict.expected(widths), predict(widths)
    for number in range(CANDIDATES):
        measured = timings.ratios[number].ratio * predict.dense_ms
        append_row(
            RESULTS,
            {
                "model": name,
                "runtime": setting.probe,
                "batch": setting.batch,
                "candidate": number,
                "divisor": DIVISORS[number % len(DIVISORS)],
                "predicted_ms": f"{expected[number]:.5g}",
                "measured_ms": f"{measured:.5g}",
                "error": f"{expected[number] / measured - 1:+.4f}",
                "monotone_ms": f"{monotone[number]:.5g}",
                "ratio_low": f"{timings.ratios[number].interval[0]:.4f}",
                "ratio_high": f"{timings.ratios[number].interval[1]:.4f}",
                "candidate_ms": f"{timings.measurements[number].median_ms:.5g}",
                "dense_ms": f"{timings.measurements[DENSE].median_ms:.5g}",
            },
        )


def prepared(name: str) -> tuple[nn.Module, Tensor]:
    """Return a model in eval mode whose activations keep their size whatever its widths, and an example."""
    torch.manual_seed(0)
    model, example = build(name)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.5)
    return model.eval(), example


def draw_widths(prunable: Prunable, candidate: int, batch: int) -> IntArray:
    """Draw widths [groups]: a ratio for each group, then the nearest multiple of the candidate's divisor."""
    divisor = DIVISORS[candidate % len(DIVISORS)]
    rng = np.random.default_rng([candidate, batch])
    widths = np.array([group.width for group in prunable.groups], dtype=np.int64)
    for group in prunable.searchable:
        wanted = divisor * round(rng.uniform(LOWEST, 1.0) * group.width / divisor)
        widths[prunable.position[group.name]] = np.clip(wanted, min(divisor, group.width), group.width)
    return widths


if __name__ == "__main__":
    main()
