"""Draw the picture of the contest: test accuracy of each arm at one budget, by seed and in the mean.

    python -m experiments.allocation.picture [--setup pairs-params]

Reads contest.csv and dense.csv, and writes contest-SETUP.png.
"""

from __future__ import annotations

import argparse

import matplotlib.pyplot as plt
import numpy as np

from experiments.allocation.contest import DENSE, RESULTS
from experiments.allocation.contest_setups import SETUPS
from experiments.allocation.setups import HERE
from experiments.common import rows_of

LABELS = {
    "uniform": "one ratio for all layers",
    "tp-l1": "Torch-Pruning, global l1",
    "tp-group": "Torch-Pruning, group norm",
    "tp-isomorphic": "Torch-Pruning, isomorphic",
    "kirigami-greedy": "torch-kirigami, greedy",
    "random": "autoprune, random search",
    "taylor": "autoprune, Taylor ranking without a search",
    "search": "autoprune search (default)",
}
"""{arm: its label}. Other arms are not drawn."""

TITLES = {"pairs-params": "VGG-16-BN on pairs of garments (100 classes) at 5% of the parameters"}
"""{setup: the title of its picture}."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--setup", default="pairs-params", choices=TITLES)
    setup = parser.parse_args().setup
    tests = scores_of(setup)
    dense = {row["config"]: 100 * float(row["test"]) for row in rows_of(DENSE)}
    draw(setup, tests, dense[SETUPS[setup].config])


def scores_of(setup: str) -> dict[str, np.ndarray]:
    """Return {arm: test accuracies in percent}, of the seeds that all arms of the picture have."""
    found: dict[str, dict[str, float]] = {}
    for row in rows_of(RESULTS):
        if row["setup"] == setup and row["arm"] in LABELS:
            found.setdefault(row["arm"], {})[row["seed"]] = 100 * float(row["test"])
    common = sorted(set.intersection(*(set(seeds) for seeds in found.values())))
    return {arm: np.array([found[arm][seed] for seed in common]) for arm in LABELS if arm in found}


def draw(setup: str, tests: dict[str, np.ndarray], dense: float) -> None:
    """Draw a line of each arm: its seeds as dots, and their mean."""
    arms = sorted(tests, key=lambda arm: tests[arm].mean())
    figure, axes = plt.subplots(figsize=(8, 0.9 + 0.42 * len(arms)), layout="constrained")
    for line, arm in enumerate(arms):
        color = "C0" if arm == "search" else "0.5"
        axes.plot(tests[arm], np.full(len(tests[arm]), line), "o", color=color, alpha=0.6)
        axes.plot([tests[arm].mean()] * 2, [line - 0.3, line + 0.3], color=color, lw=2.5)
        left = tests[arm].min() - 0.2
        axes.annotate(
            f"{tests[arm].mean():.1f}", (left, line), ha="right", va="center", fontsize=9, color=color
        )
    axes.axvline(dense, ls="--", color="0.3", label=f"dense model {dense:.1f}")
    axes.set_yticks(range(len(arms)), [LABELS[arm] for arm in arms])
    axes.set_xlabel("test accuracy after the same finetune, %")
    axes.legend(loc="lower center", fontsize=9)
    axes.margins(x=0.12)
    axes.grid(axis="x", alpha=0.3)
    seeds = len(next(iter(tests.values())))
    counted = "one seed" if seeds == 1 else f"{seeds} seeds and their mean"
    figure.suptitle(f"{TITLES[setup]}: {counted}", fontsize=10)
    figure.savefig(HERE / f"contest-{setup}.png", dpi=150)
    plt.close(figure)


if __name__ == "__main__":
    main()
