"""A study as one picture: score against evaluations, and against MACs or whatever costs are objectives.

Before: `report.summary`; after: a PNG file. matplotlib is imported when a picture is drawn, not before.

    plot_study(summary, "runs/digits/report.png")
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.errors import StudyError
from autoprune.report.costs import label
from autoprune.report.summary import StudySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from autoprune.study import TrialRecord

_TRIALS, _BEST, _DENSE, _STOPPED = "#4477aa", "#ee6677", "#555555", "#bbbbbb"


def plot_study(summary: StudySummary, path: str | os.PathLike[str]) -> Path:
    """Draw the trials' scores against their numbers and their costs, the best so far and the dense model.

    The costs are those that are objectives, with the front; MACs where the score is the only one.

    Raises:
        StudyError: no trial has a score yet.
    """
    if not summary.ranked():
        raise StudyError(f"{summary.study}: no trial has a score yet, so there is nothing to draw.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    costs = summary.objectives[1:] or ("macs",)
    figure = Figure(figsize=(5 + 5 * len(costs), 4), layout="constrained")
    FigureCanvasAgg(figure)
    over_trials, *over_costs = figure.subplots(1, 1 + len(costs), sharey=True)
    floor = _floor(summary)
    _draw_trials(over_trials, summary, floor)
    for axes, cost in zip(over_costs, costs, strict=True):
        _draw_cost(axes, summary, floor, cost)
    figure.suptitle(f"{summary.study}: {len(summary.records)} trials")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    return path


def _floor(summary: StudySummary) -> float:
    """Return the lowest score that is drawn in its place: trials stopped early must not squeeze the rest."""
    scores = [record.score or 0.0 for record in summary.ranked()]
    whole = [record.score or 0.0 for record in summary.ranked() if record.is_whole]
    low, high = min(whole or scores), max(*scores, summary.dense_score)
    return max(min(scores), low - 0.2 * (high - low))


def _draw_trials(axes: Axes, summary: StudySummary, floor: float) -> None:
    finished = sorted(summary.ranked(), key=lambda record: record.number)
    stopped = [record for record in finished if not record.is_whole]
    for chosen, color, marker, words in (
        ([record for record in stopped if (record.score or 0.0) < floor], _STOPPED, "v", "stopped, below"),
        ([record for record in stopped if (record.score or 0.0) >= floor], _STOPPED, "o", "stopped early"),
        ([record for record in finished if record.is_whole], _TRIALS, "o", "complete"),
    ):
        if chosen:
            numbers = [record.number for record in chosen]
            heights = [max(record.score or 0.0, floor) for record in chosen]
            axes.scatter(numbers, heights, s=18, color=color, marker=marker, label=words)
    best, numbers, heights = float("-inf"), [], []
    for record in finished:
        if record.is_whole and record.score is not None:
            best = max(best, record.score)
            numbers.append(record.number)
            heights.append(best)
    if numbers:
        numbers.append(finished[-1].number)
        heights.append(best)
    axes.step(numbers, heights, where="post", color=_BEST, label="best so far")
    axes.axhline(summary.dense_score, color=_DENSE, linestyle="--", label="dense")
    axes.set_xlabel("trial")
    axes.set_ylabel(f"{summary.metric} on the validation part")
    axes.legend(loc="best", framealpha=0.8)
    axes.grid(alpha=0.3)


def _draw_cost(axes: Axes, summary: StudySummary, floor: float, cost: str) -> None:
    def points(records: Sequence[TrialRecord]) -> tuple[list[float], list[float]]:
        return [100 * summary.share(each, cost) for each in records], [each.score or 0.0 for each in records]

    scored = [record for record in summary.ranked() if (record.score or 0.0) >= floor]
    axes.scatter(*points(scored), s=18, color=_TRIALS)
    if summary.front:
        front = [record for record in summary.front if (record.score or 0.0) >= floor]
        axes.scatter(*points(front), s=30, color=_BEST, label="front")
        if len(summary.objectives) == 2:  # with more, the front is no line in any one of them
            axes.step(*points(front), where="post", color=_BEST)
    elif summary.best is not None:
        axes.scatter(*points([summary.best]), s=80, color=_BEST, marker="*", label="best")
    if summary.best is not None:
        axes.legend(loc="best", framealpha=0.8)
    limit = summary.limits.get(cost, math.inf)
    if limit < summary.dense_costs[cost]:
        axes.axvline(100 * limit / summary.dense_costs[cost], color=_DENSE, linestyle=":")
    axes.axhline(summary.dense_score, color=_DENSE, linestyle="--")
    axes.set_xlabel(f"{label(cost)}, % of the dense model")
    axes.grid(alpha=0.3)
