"""Reads the results so far from the CSV files: best scores by trial, and paired differences.

Example:
    curve = read_curves()["resnet20-25"]["tpe"][0]     # of seed 0: curve.best, curve.seconds
    paired({0: 0.71, 1: 0.72}, {0: 0.70, 1: 0.70})     # Difference(mean=0.015, low=-0.05, high=0.08, seeds=2)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from autoprune.config.settings import SearchSettings
from experiments.common import rows_of
from experiments.search_efficiency.curves import LARGE, METHODS
from experiments.search_efficiency.setups import HERE, SETUPS

SEEDS = (0, 1, 2)
RANDOM = f"random-{LARGE}"
DEFAULT = SearchSettings().sampler
"""The sampler of a search that names none."""

FRESH_SEEDS = (3, 4, 5)
FRESH_METHODS = (RANDOM, "tpe", DEFAULT)
"""Seeds that were measured only after the default sampler had been chosen by SEEDS."""

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Curve:
    """One search: the best score after each of its trials [n], and the seconds that had passed by then [n].

    A trial whose widths were scored before counts as an evaluation, although it took none. Every evaluation
    counts with the median seconds of all those of its setup and seed: candidates of one budget take about the
    same time, and what else the machine did meanwhile is none of the sampler's.
    """

    best: FloatArray
    seconds: FloatArray

    def best_at(self, trials: int) -> float:
        """Return the best score after this many trials."""
        return float(self.best[min(trials, len(self.best)) - 1])


@dataclass(frozen=True)
class Difference:
    """A mean paired difference with its 95% interval (Student's t), which takes two seeds."""

    mean: float
    low: float
    high: float
    seeds: int

    def text(self, scale: float = 100.0) -> str:
        """Write it in points (of per cent)."""
        if self.seeds < 2:
            return f"{scale * self.mean:+.2f} (one seed: no interval)"
        return f"{scale * self.mean:+.2f} [{scale * self.low:+.2f}, {scale * self.high:+.2f}]"


BySeed = dict[int, Curve]


def read_curves(
    seeds: Iterable[int] = SEEDS, methods: Iterable[str] = tuple(METHODS)
) -> dict[str, dict[str, BySeed]]:
    """Return the whole searches by setup, method and seed. One that was cut off is left out."""
    found: dict[str, dict[str, BySeed]] = {}
    for setup, seed in itertools.product(SETUPS, seeds):
        rows = rows_of(HERE / "curves" / f"{setup}-{seed}.csv")
        evaluations = _evaluations(setup, seed)
        for method in methods:
            mine = [row for row in rows if row["method"] == method]
            if len(mine) == METHODS[method].trials:
                found.setdefault(setup, {}).setdefault(method, {})[seed] = _curve(mine, evaluations)
    return found


def _evaluations(setup: str, seed: int) -> dict[str, float]:
    """Return {widths: seconds of their one evaluation}."""
    rows = rows_of(HERE / "scores" / f"{setup}-{seed}.csv")
    return {row["widths"]: float(row["seconds"]) for row in rows}


def _curve(rows: list[dict[str, str]], evaluations: Mapping[str, float]) -> Curve:
    """Read a search's trials, in order. One that took no evaluation ends with the one before."""
    ordered = sorted(rows, key=lambda row: int(row["trial"]))
    typical = float(np.median(list(evaluations.values())))
    seconds: list[float] = []
    passed = counted = 0.0
    for row in ordered:
        if row["seconds"]:
            beside = float(row["seconds"]) - passed - evaluations[row["widths"]]
            passed, counted = float(row["seconds"]), counted + max(beside, 0.0) + typical
        seconds.append(counted)
    scores = np.array([float(row["score"]) for row in ordered])
    return Curve(np.maximum.accumulate(scores), np.array(seconds))


def paired(values: Mapping[int, float], base: Mapping[int, float]) -> Difference | None:
    """Return the mean difference of values to a base, {seed: value} each, over the seeds that both have."""
    seeds = sorted(values.keys() & base.keys())
    if not seeds:
        return None
    differences = np.array([values[seed] - base[seed] for seed in seeds])
    mean = float(differences.mean())
    if len(seeds) == 1:
        return Difference(mean, -np.inf, np.inf, 1)
    half = float(stats.t.ppf(0.975, len(seeds) - 1) * stats.sem(differences))
    return Difference(mean, mean - half, mean + half, len(seeds))


def read_finetunes() -> dict[str, dict[str, dict[int, dict[str, str]]]]:
    """Return the rows of the finetunes, by setup, method and seed."""
    found: dict[str, dict[str, dict[int, dict[str, str]]]] = {}
    for row in rows_of(HERE / "finetunes.csv"):
        found.setdefault(row["setup"], {}).setdefault(row["method"], {})[int(row["seed"])] = row
    return found


def accuracies(rows: Mapping[int, Mapping[str, str]]) -> dict[int, float]:
    """Return the test accuracies of one method's finetunes, by seed."""
    return {seed: float(row["test_accuracy"]) for seed, row in rows.items()}
