"""Draws curves.png: the mean best score of every method against trials and against seconds, a column a setup.

Example:
    draw(read_curves(), HERE / "curves.png")
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

from experiments.search_efficiency.curves import METHODS
from experiments.search_efficiency.measured import RANDOM, BySeed, FloatArray

SHOWN_FROM = 5
"""The axis of scores begins at what random search has after so many trials: before that, all rise steeply."""


def draw(curves: Mapping[str, Mapping[str, BySeed]], path: Path) -> None:
    """Draw all setups that have curves. The mean is over the seeds that a method has."""
    figure, grid = plt.subplots(
        2, len(curves), figsize=(6 * len(curves) + 2, 9), layout="constrained", squeeze=False
    )
    for (upper, lower), (setup, methods) in zip(grid.T, curves.items(), strict=True):
        for method, seeds in methods.items():
            label = f"{method} ({len(seeds)} seed{'s' if len(seeds) > 1 else ''})"
            upper.plot(*_by_trials(seeds), label=label, **_look(method))
            lower.plot(*_by_seconds(seeds), **_look(method))
        _finish(upper, methods, "trials, those with known widths included")
        _finish(lower, methods, "seconds, warm starts and proposals included")
        upper.set_title(setup)
        upper.legend(fontsize=7, loc="lower right")
    figure.suptitle("best validation accuracy after BatchNorm recalibration, mean over seeds")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _look(method: str) -> dict[str, str | float]:
    """Give each sampler a colour, cold ones dashes, and random search black."""
    sampler = METHODS[method].sampler
    samplers = list(dict.fromkeys(each.sampler for each in METHODS.values() if each.sampler != "random"))
    colour = "k" if sampler == "random" else f"C{samplers.index(sampler)}"
    return {
        "color": colour,
        "linestyle": "-" if METHODS[method].warm or sampler == "random" else "--",
        "drawstyle": "steps-post",
    }


def _by_trials(seeds: BySeed) -> tuple[FloatArray, FloatArray]:
    best = np.mean([curve.best for curve in seeds.values()], axis=0)
    return np.arange(1.0, len(best) + 1), best


def _by_seconds(seeds: BySeed) -> tuple[FloatArray, FloatArray]:
    """Average step functions from when every seed has a score to when the last one ends."""
    curves = list(seeds.values())
    times = np.unique(np.concatenate([curve.seconds for curve in curves]))
    times = times[times >= max(curve.seconds[0] for curve in curves)]
    steps = [curve.best[np.searchsorted(curve.seconds, times, side="right") - 1] for curve in curves]
    return times, np.mean(steps, axis=0)


def _finish(axes: Axes, methods: Mapping[str, BySeed], label: str) -> None:
    if RANDOM in methods:
        rising = _by_trials(methods[RANDOM])[1]
        axes.set_ylim(bottom=float(rising[min(SHOWN_FROM, len(rising)) - 1]))
    axes.set_xscale("log")
    axes.set_xlabel(label)
    axes.grid(alpha=0.3)
