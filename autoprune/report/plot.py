"""A study as one picture: score against evaluations, and against MACs.

Before: `report.summary`; after: a PNG file. matplotlib is imported when a picture is drawn, not before.

    plot_study(summary, "runs/digits/report.png")
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from autoprune.errors import StudyError
from autoprune.report.summary import StudySummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TRIALS, _BEST, _DENSE, _STOPPED = "#4477aa", "#ee6677", "#555555", "#bbbbbb"


def plot_study(summary: StudySummary, path: str | os.PathLike[str]) -> Path:
    """Draw the trials' scores against their numbers and their MACs, the best so far and the dense model.

    Raises:
        StudyError: no trial has a score yet.
    """
    if not summary.ranked():
        raise StudyError(f"{summary.study}: no trial has a score yet, so there is nothing to draw.")
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    over_trials, over_macs = figure.subplots(1, 2, sharey=True)
    _draw_trials(over_trials, summary)
    _draw_macs(over_macs, summary)
    figure.suptitle(f"{summary.study}: {len(summary.records)} trials")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    return path


def _draw_trials(axes: Axes, summary: StudySummary) -> None:
    finished = sorted(summary.ranked(), key=lambda record: record.number)
    for stopped, color, label in ((True, _STOPPED, "stopped early"), (False, _TRIALS, "complete")):
        chosen = [record for record in finished if (record.stopped or record.state != "complete") is stopped]
        if chosen:
            numbers = [record.number for record in chosen]
            axes.scatter(numbers, [record.score or 0.0 for record in chosen], s=18, color=color, label=label)
    best, numbers, heights = float("-inf"), [], []
    for record in finished:
        if record.state == "complete" and not record.stopped and record.score is not None:
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


def _draw_macs(axes: Axes, summary: StudySummary) -> None:
    scored = summary.ranked()
    shares = [100 * summary.macs_share(record) for record in scored]
    axes.scatter(shares, [record.score or 0.0 for record in scored], s=18, color=_TRIALS)
    if summary.best is not None:
        share = 100 * summary.macs_share(summary.best)
        axes.scatter([share], [summary.best.score or 0.0], s=80, color=_BEST, marker="*", label="best")
        axes.legend(loc="best", framealpha=0.8)
    if summary.budget_macs is not None:
        axes.axvline(100 * summary.budget_macs / summary.dense_macs, color=_DENSE, linestyle=":")
    axes.axhline(summary.dense_score, color=_DENSE, linestyle="--")
    axes.set_xlabel("MACs, % of the dense model")
    axes.grid(alpha=0.3)
