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

    from autoprune.study import TrialRecord

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
    floor = _floor(summary)
    _draw_trials(over_trials, summary, floor)
    _draw_macs(over_macs, summary, floor)
    figure.suptitle(f"{summary.study}: {len(summary.records)} trials")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, format="png")
    return path


def _is_whole(record: TrialRecord) -> bool:
    return record.state == "complete" and not record.stopped


def _floor(summary: StudySummary) -> float:
    """Return the lowest score that is drawn in its place: trials stopped early must not squeeze the rest."""
    scores = [record.score or 0.0 for record in summary.ranked()]
    whole = [record.score or 0.0 for record in summary.ranked() if _is_whole(record)]
    low, high = min(whole or scores), max(*scores, summary.dense_score)
    return max(min(scores), low - 0.2 * (high - low))


def _draw_trials(axes: Axes, summary: StudySummary, floor: float) -> None:
    finished = sorted(summary.ranked(), key=lambda record: record.number)
    stopped = [record for record in finished if not _is_whole(record)]
    for chosen, color, marker, label in (
        ([record for record in stopped if (record.score or 0.0) < floor], _STOPPED, "v", "stopped, below"),
        ([record for record in stopped if (record.score or 0.0) >= floor], _STOPPED, "o", "stopped early"),
        ([record for record in finished if _is_whole(record)], _TRIALS, "o", "complete"),
    ):
        if chosen:
            numbers = [record.number for record in chosen]
            heights = [max(record.score or 0.0, floor) for record in chosen]
            axes.scatter(numbers, heights, s=18, color=color, marker=marker, label=label)
    best, numbers, heights = float("-inf"), [], []
    for record in finished:
        if _is_whole(record) and record.score is not None:
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


def _draw_macs(axes: Axes, summary: StudySummary, floor: float) -> None:
    scored = [record for record in summary.ranked() if (record.score or 0.0) >= floor]
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
