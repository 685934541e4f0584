"""Claim: a search under a latency budget of 60% ends with a winner that, measured, keeps to it.

ResNet-20 on Fashion-MNIST in ONNX Runtime, one image on one thread, 30 trials. All else is the default. The
finalists are timed side by side with the dense model after the trials. The winner is then timed once more,
which has no influence on the choice.

    python -m experiments.latency.search

Writes search.csv, a row a finalist. The search goes on where it was cut off.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

import autoprune
from autoprune import run
from autoprune.config import load_config
from autoprune.latency import side_by_side
from autoprune.latency.table import narrowed
from autoprune.run._resolving.dense import load_dense
from experiments.common import append_row
from experiments.finetuning import searched

HERE = Path(__file__).parent
RESULTS = HERE / "search.csv"


def main() -> None:
    config = run.settle(load_config(HERE / "resnet20.toml", ()))
    study = searched(config)
    dense = load_dense(config)
    prunable = autoprune.trace(dense.model, dense.example_inputs)
    best = study.best()
    widths = np.array([best.widths[group.name] for group in prunable.groups], dtype=np.int64)
    setting = config.usable_runtime
    with side_by_side(dense.model, dense.example_inputs, setting, limit_seconds=30.0) as measure:
        _, _, again = measure(narrowed(prunable, widths))
    RESULTS.unlink(missing_ok=True)
    table = study.facts.latency or {}
    for record in study.records():
        measured = record.measured
        if measured is not None:
            predicted = record.costs["latency_ms"] / float(table["dense_ms"])
            append_row(
                RESULTS,
                {
                    "trial": record.number,
                    "origin": record.origin,
                    "score": f"{record.score:.4f}",
                    "flops_share": round((record.macs or 0) / int(prunable.cost().macs), 4),
                    "predicted": round(predicted, 4),
                    "measured": round(measured.ratio, 4),
                    "low": round(measured.ratio_interval[0], 4),
                    "high": round(measured.ratio_interval[1], 4),
                    "met": measured.met,
                    "won": record.number == best.number,
                    "once_more": round(again.ratio, 4) if record.number == best.number else "",
                },
            )


if __name__ == "__main__":
    main()
