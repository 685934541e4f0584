"""Draw a study: the score over the trials, and over the MACs or the costs that are objectives.

matplotlib is imported only when a picture is drawn.

Example:
    plot_study(summary, "runs/digits/report.png")
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.cost import COSTS
from autoprune.errors import StudyError
from autoprune.reporting._history import best_so_far, is_partial, score_floor
from autoprune.reporting._pictures import save_picture
from autoprune.reporting._summary import StudySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from autoprune.study import TrialRecord

_TRIALS, _BEST, _DENSE, _PARTIAL = "#4477aa", "#ee6677", "#555555", "#bbbbbb"


def plot_study(summary: StudySummary, path: str | os.PathLike[str]) -> Path:
    """Draw the scores of trials over their numbers and their costs, with the best so far and the dense model.

    The costs are the objectives, with the Pareto front, or MACs if the score is the only objective.

    Raises:
        StudyError: no trial has a score yet, or the file cannot be written.
        ConfigError: the file's name does not end in .png, .svg or .pdf.
    """
    if not summary.ranked():
        raise StudyError(f"{summary.study}: no trial has a score yet, so there is nothing to draw.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    costs = summary.objectives[1:] or (summary.smallest or "macs",)
    figure = Figure(figsize=(5 + 5 * len(costs), 4), layout="constrained")
    FigureCanvasAgg(figure)
    over_trials, *over_costs = figure.subplots(1, 1 + len(costs), sharey=True)
    floor = score_floor(summary)
    _draw_trials(over_trials, summary, floor)
    for axes, cost in zip(over_costs, costs, strict=True):
        _draw_cost(axes, summary, floor, cost)
    figure.suptitle(f"{summary.study}: {len(summary.records)} trials")
    return save_picture(figure, path)


def _draw_trials(axes: Axes, summary: StudySummary, floor: float) -> None:
    finished = sorted(summary.ranked(), key=lambda record: record.number)
    partial = [record for record in finished if is_partial(record)]
    for chosen, color, marker, words in (
        (
            [record for record in partial if (record.score or 0.0) < floor],
            _PARTIAL,
            "v",
            "pruned or failed, below",
        ),
        ([record for record in partial if (record.score or 0.0) >= floor], _PARTIAL, "o", "pruned or failed"),
        ([record for record in finished if not is_partial(record)], _TRIALS, "o", "complete"),
    ):
        if chosen:
            numbers = [record.number for record in chosen]
            heights = [max(record.score or 0.0, floor) for record in chosen]
            axes.scatter(numbers, heights, s=18, color=color, marker=marker, label=words)
    best = best_so_far(summary)
    numbers, heights = [number for number, _ in best], [score for _, score in best]
    if best:
        numbers.append(finished[-1].number)
        heights.append(heights[-1])
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
    for partial, color in ((True, _PARTIAL), (False, _TRIALS)):
        chosen = [record for record in scored if is_partial(record) is partial]
        if chosen:
            axes.scatter(*points(chosen), s=18, color=color)
    if summary.front:
        front = [record for record in summary.front if (record.score or 0.0) >= floor]
        axes.scatter(*points(front), s=30, color=_BEST, label="Pareto front")
        if len(summary.objectives) == 2:  # with more objectives the front is not a line over one of them
            axes.step(*points(front), where="post", color=_BEST)
    elif summary.best is not None:
        axes.scatter(*points([summary.best]), s=80, color=_BEST, marker="*", label="best")
    if summary.best is not None:
        axes.legend(loc="best", framealpha=0.8)
    limit = summary.limits.get(cost, math.inf)
    if limit < summary.dense_costs[cost]:
        axes.axvline(100 * limit / summary.dense_costs[cost], color=_DENSE, linestyle=":")
    axes.axhline(summary.dense_score, color=_DENSE, linestyle="--")
    if summary.least_score is not None:
        axes.axhline(summary.least_score, color=_DENSE, linestyle=":")
    axes.set_xlabel(f"{COSTS[cost].label}, % of the dense model")
    axes.grid(alpha=0.3)
