"""Interactive figures of a study for notebooks, as plotly figures. plotly is imported when one is drawn.

Example:
    pareto_figure(summary).show()
    rung_figure(study.optuna, summary).write_html("rungs.html")
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import optuna

from autoprune.config.rungs import score_text
from autoprune.cost import COSTS
from autoprune.errors import StudyError
from autoprune.reporting._insights import FEWEST_TRIALS
from autoprune.reporting._rows import outcome
from autoprune.reporting._summary import StudySummary
from autoprune.study import TrialRecord
from autoprune.support.extras import load_extra

_TRIALS, _BEST, _DENSE, _PARTIAL = "#4477aa", "#ee6677", "#777777", "#bbbbbb"


def history_figure(study: optuna.Study, summary: StudySummary) -> Any:
    """Return the scores of the complete trials in their order, the best so far, and the dense model's score.

    Raises:
        ConfigError: plotly is not installed.
        StudyError: no trial is complete.
    """
    _plotly()
    _require(summary, any(record.is_whole for record in summary.records), "no trial is complete")
    figure = optuna.visualization.plot_optimization_history(
        study, target=_first_value if len(summary.objectives) > 1 else None, target_name=_metric(summary)
    )
    figure.update_layout(title=f"{summary.study}: scores of the trials", xaxis_title="trial")
    return _with_dense(figure, summary)


def pareto_figure(summary: StudySummary, cost: str | None = None) -> Any:
    """Return the scores of all trials over a cost, as a share of the dense model's.

    Args:
        summary: of the study.
        cost: its name in `autoprune.cost.COSTS`. By default it is the first cost that the search minimises,
            else the first one that the budget limits.

    Raises:
        ConfigError: plotly is not installed.
        StudyError: no trial has a score, or the study does not know this cost.
    """
    graph = _plotly()
    scored = summary.ranked()
    _require(summary, bool(scored), "no trial has a score")
    shown = cost or next(iter((*summary.objectives[1:], *summary.limits, "macs")))
    _require(
        summary,
        shown in summary.dense_costs,
        f"its trials have no cost {shown}, but {', '.join(summary.dense_costs)}",
    )
    figure = graph.Figure()
    best = summary.front or ((summary.best,) if summary.best is not None else ())
    kinds: tuple[tuple[str, str, Sequence[TrialRecord]], ...] = (
        ("pruned or failed", _PARTIAL, [each for each in scored if not each.is_whole]),
        ("complete", _TRIALS, [each for each in scored if each.is_whole]),
        ("Pareto front" if summary.front else "best", _BEST, best),
    )
    for name, color, records in kinds:
        figure.add_scatter(
            x=[summary.share(record, shown) for record in records],
            y=[record.score for record in records],
            text=[_hover(summary, record) for record in records],
            hovertemplate="%{text}<extra></extra>",
            mode="markers",
            marker={"color": color, "size": 11 if records is best else 7},
            name=name,
        )
    label = COSTS[shown].label
    limit = summary.limits.get(shown)
    if limit is not None:
        figure.add_vline(x=limit / summary.dense_costs[shown], line_dash="dot", annotation_text="budget")
    figure.update_layout(
        title=f"{summary.study}: score over {label}",
        xaxis={"title": f"{label}, share of the dense model's", "tickformat": ".0%"},
        yaxis_title=_metric(summary),
    )
    return _with_dense(figure, summary)


def importance_figure(summary: StudySummary) -> Any:
    """Return how much of the differences between scores each keep ratio explains (see `group_importances`).

    Raises:
        ConfigError: plotly is not installed.
        StudyError: the importances are not known.
    """
    graph = _plotly()
    why = f"importances need {FEWEST_TRIALS} complete trials under one budget"
    _require(summary, bool(summary.importances), why)
    ordered = sorted(summary.importances.items(), key=lambda item: item[1])
    figure = graph.Figure()
    figure.add_bar(x=[share for _, share in ordered], y=[name for name, _ in ordered], orientation="h")
    figure.update_layout(
        title=f"{summary.study}: keep ratios that explain the scores",
        xaxis={"title": "share of the variance of the scores", "tickformat": ".0%"},
        height=max(400, 22 * len(ordered) + 150),
    )
    return figure


def rung_figure(study: optuna.Study, summary: StudySummary) -> Any:
    """Return the score of each trial after each rung that it climbed.

    Raises:
        ConfigError: plotly is not installed.
        StudyError: no trial has a score.
    """
    _plotly()
    _require(summary, bool(summary.ranked()), "no trial has a score")
    figure = optuna.visualization.plot_intermediate_values(study)
    steps = sorted({step for trace in figure.data for step in trace.x})
    figure.update_layout(
        title=f"{summary.study}: scores of the rungs",
        xaxis={"title": "rung", "type": "log", "tickvals": steps, "ticktext": summary.rungs[: len(steps)]},
        yaxis_title=_metric(summary),
    )
    return _with_dense(figure, summary)


def _plotly() -> Any:
    return load_extra("plotly.graph_objects", extra="plotly", purpose="an interactive figure")


def _require(summary: StudySummary, holds: bool, problem: str) -> None:
    if not holds:
        raise StudyError(f"{summary.study}: {problem}, so there is nothing to draw.")


def _first_value(trial: optuna.trial.FrozenTrial) -> float:
    return float(trial.values[0])


def _metric(summary: StudySummary) -> str:
    return f"{summary.metric} on the validation part"


def _with_dense(figure: Any, summary: StudySummary) -> Any:
    figure.add_hline(y=summary.dense_score, line_dash="dash", line_color=_DENSE, annotation_text="dense")
    return figure


def _hover(summary: StudySummary, record: TrialRecord) -> str:
    costs = [f"{COSTS[cost].label} {summary.share(record, cost):.1%}" for cost in summary.shown_costs]
    return "<br>".join(
        [
            f"trial {record.number}, {record.origin}",
            f"{summary.metric} {score_text(record.score, record.error)}, {outcome(record)}",
            ", ".join(costs),
        ]
    )
