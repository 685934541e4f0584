"""Claim: the latency of unseen candidates is predicted with a mean absolute error of at most 5%.

In ONNX Runtime and eager PyTorch on the CPU, at batch 1 and 32, always on one thread; ResNet-20 at 28 px,
ResNet-50 and MobileNetV3-L at 224 px. 30 candidates each: keep ratios drawn for each group from [0.1, 1], in
every other candidate rounded to multiples of 8. None of them had a part in the table. Each is exported or
rebuilt as a user would, and timed in turn with the dense model; its milliseconds are the ratio of the two
times the table's milliseconds of the dense model, so that a machine that changed since the table cancels out.

Weights are random, as latency does not depend on them; BatchNorms get random scales and shifts, which keep
activations of narrow random networks from vanishing into slow denormal numbers.

    python -m experiments.latency.prediction [--models resnet50] [--runtimes onnx] [--batches 1] [--minutes 5]

Appends a row a candidate to prediction.csv and goes on where it was cut off; tables are kept in tables/, and
measured where they are missing. `python -m experiments.latency.errors` sums up and draws.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import autoprune
from autoprune.graph import Prunable
from autoprune.latency import LatencySetting, beside
from autoprune.latency.widths import narrowed
from experiments.common import append_row, build, rows_of
from experiments.latency.tables import predictor_of

RESULTS = Path(__file__).parent / "prediction.csv"
MODELS = ("autoprune/resnet20", "mobilenet_v3_large", "resnet50")
RUNTIMES = ("onnx", "eager")
BATCHES = (1, 32)
CANDIDATES = 30
DIVISORS = (1, 8)
LOWEST = 0.1
SECONDS = 6.0
"""That a candidate is timed for at most, if six rounds are done by then."""

IntArray = NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--runtimes", nargs="+", default=list(RUNTIMES), choices=RUNTIMES)
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), choices=BATCHES)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="start nothing more after these")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    for name, runtime, batch in itertools.product(options.models, options.runtimes, options.batches):
        key = (name, runtime, str(batch))
        done = {
            int(row["candidate"])
            for row in rows_of(RESULTS)
            if (row["model"], row["runtime"], row["batch"]) == key
        }
        wanted = [number for number in range(CANDIDATES) if number not in done]
        if wanted and time.monotonic() < deadline:
            measure(name, LatencySetting(runtime, batch=batch), wanted, deadline)


def measure(name: str, setting: LatencySetting, wanted: list[int], deadline: float) -> None:
    """Predict and time candidates of one model under one setting."""
    model, example = prepared(name)
    prunable = autoprune.trace(model, example)
    predict = predictor_of(name, prunable, setting)
    with beside(model, example, setting, tolerance=0.01, limit_seconds=SECONDS) as timed:
        for number in wanted:
            if time.monotonic() > deadline:
                return
            divisor = DIVISORS[number % len(DIVISORS)]
            widths = draw_widths(prunable, divisor, np.random.default_rng([number, setting.batch]))
            small, dense, ratio = timed(narrowed(prunable, widths))
            measured = ratio.ratio * predict.dense_ms
            expected = float(predict.expected(widths[None])[0])
            append_row(
                RESULTS,
                {
                    "model": name,
                    "runtime": setting.probe,
                    "batch": setting.batch,
                    "candidate": number,
                    "divisor": divisor,
                    "predicted_ms": f"{expected:.5g}",
                    "measured_ms": f"{measured:.5g}",
                    "error": f"{expected / measured - 1:+.4f}",
                    "monotone_ms": f"{float(predict(widths[None])[0]):.5g}",
                    "ratio_low": f"{ratio.interval[0]:.4f}",
                    "ratio_high": f"{ratio.interval[1]:.4f}",
                    "candidate_ms": f"{small.median_ms:.5g}",
                    "dense_ms": f"{dense.median_ms:.5g}",
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


def draw_widths(prunable: Prunable, divisor: int, rng: np.random.Generator) -> IntArray:
    """Draw widths [groups]: a ratio for each group, then the nearest multiple of the divisor that it has."""
    widths = np.array([group.width for group in prunable.groups], dtype=np.int64)
    for group in prunable.searchable:
        wanted = divisor * round(rng.uniform(LOWEST, 1.0) * group.width / divisor)
        widths[prunable.position[group.name]] = np.clip(wanted, min(divisor, group.width), group.width)
    return widths


if __name__ == "__main__":
    main()
