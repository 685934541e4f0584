"""Make the table and the plot of this experiment from results.csv.

    python -m experiments.fashion_mnist_resnet20.summarise

Differences to uniform are paired by seed. The interval is Student's t at 95%.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import stats

from experiments.common import rows_of

HERE = Path(__file__).parent
METHODS = {"uniform": "uniform l1", "random": "best of 40 random", "search": "autoprune (TPE, 40 trials)"}


def main() -> None:
    scores = read()
    lines = [
        "| method | test accuracy, each seed | mean | difference to uniform (95%) |",
        "| --- | --- | --- | --- |",
    ]
    for method, label in METHODS.items():
        values = scores[method]
        each = ", ".join(f"{value:.2f}" for value in values)
        lines.append(f"| {label} | {each} | {values.mean():.2f} | {difference(values, scores['uniform'])} |")
    table = "\n".join(lines)
    (HERE / "table.md").write_text(table + "\n", "utf-8")
    print(table)
    print("search less random:", difference(scores["search"], scores["random"]))
    plot(scores)


def read() -> dict[str, NDArray[np.float64]]:
    """Return test accuracies in per cent, by method, in the order of the seeds that all methods have."""
    rows = rows_of(HERE / "results.csv")
    by_key = {(row["method"], int(row["seed"])): 100 * float(row["test_accuracy"]) for row in rows}
    seeds = [seed for seed in sorted({s for _, s in by_key}) if all((m, seed) in by_key for m in METHODS)]
    return {method: np.array([by_key[method, seed] for seed in seeds]) for method in METHODS}


def difference(values: NDArray[np.float64], base: NDArray[np.float64]) -> str:
    """Return the mean paired difference and its interval."""
    pairs = values - base
    if not pairs.any():
        return "0"
    if len(pairs) == 1:
        return f"{pairs[0]:+.2f} (one seed: no interval)"
    half = stats.t.ppf(0.975, len(pairs) - 1) * stats.sem(pairs)
    return f"{pairs.mean():+.2f} [{pairs.mean() - half:+.2f}, {pairs.mean() + half:+.2f}]"


def plot(scores: dict[str, NDArray[np.float64]]) -> None:
    figure, axes = plt.subplots(figsize=(7, 2.8), layout="constrained")
    for row, method in enumerate(METHODS):
        values = scores[method]
        axes.plot(values, np.full(len(values), row), "o", alpha=0.7)
        axes.plot([values.mean()] * 2, [row - 0.25, row + 0.25], "k-", lw=2)
        axes.annotate(f"{values.mean():.2f}", (values.mean(), row + 0.3), ha="center", fontsize=9)
    axes.set_yticks(range(len(METHODS)), list(METHODS.values()))
    axes.set_ylim(-0.6, len(METHODS) - 0.3)
    dense = 100 * float(json.loads((HERE / "dense.json").read_text("utf-8"))["test_score"])
    axes.axvline(dense, ls="--", color="0.4", label=f"dense {dense:.2f}")
    every = np.concatenate([*scores.values(), [dense]])
    # At least a point wide: seeds of one method lie some tenths apart, and a plot should not hide it.
    margin = max(0.1, (1.0 - np.ptp(every)) / 2)
    axes.set_xlim(every.min() - margin, every.max() + margin)
    axes.legend(loc="lower right", fontsize=9)
    axes.set_xlabel("test accuracy after finetuning, %")
    count = len(scores["uniform"])
    seeds = "one seed" if count == 1 else f"{count} seeds and their mean"
    figure.suptitle(f"ResNet-20 on Fashion-MNIST at 25% of the FLOPs: {seeds}", fontsize=10)
    axes.grid(axis="x", alpha=0.3)
    figure.savefig(HERE / "result.png", dpi=150)


if __name__ == "__main__":
    main()
