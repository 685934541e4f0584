"""The data frame and the figures of a study against its records."""

from __future__ import annotations

import dataclasses
import sys

import optuna
import pytest

from autoprune.engines._pruners import rung_step
from autoprune.errors import ConfigError, StudyError
from autoprune.reporting import (
    StudySummary,
    history_figure,
    importance_figure,
    pareto_figure,
    rung_figure,
    trial_frame,
)
from tests.reporting.test_html_page import searched
from tests.reporting.test_tables import HOPELESS, SUMMARY

pytest.importorskip("pandas")
pytest.importorskip("plotly")

ENDED = searched(40)


def optunas(summary: StudySummary) -> optuna.Study:
    """A study of Optuna's with the scores of a summary's trials."""
    study = optuna.create_study(direction="maximize")
    states = {
        "complete": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    for record in summary.records:
        reached = {rung_step(score.index): score.score for score in record.scores}
        value = record.score if record.state == "complete" else None
        study.add_trial(
            optuna.trial.create_trial(state=states[record.state], value=value, intermediate_values=reached)
        )
    return study


def test_the_data_frame_has_a_row_for_each_trial() -> None:
    frame = trial_frame(ENDED)
    assert list(frame.index) == [record.number for record in ENDED.records]
    for record in ENDED.records:
        row = frame.loc[record.number]
        assert (row.origin, row.state, row["width conv1"]) == (
            record.origin,
            record.state,
            record.widths["conv1"],
        )
        assert row["macs share"] == pytest.approx(record.costs["macs"] / ENDED.dense_costs["macs"])
        reached = {score.name: score.score for score in record.scores}
        assert frame.loc[record.number, [f"after {rung}" for rung in ENDED.rungs]].dropna().to_dict() == {
            f"after {rung}": score for rung, score in reached.items()
        }
    assert set(frame.failure.dropna()) == {"diverged"}
    assert trial_frame(dataclasses.replace(SUMMARY, records=())).empty


def test_the_history_and_the_rungs_hold_the_scores_of_the_trials() -> None:
    whole = [record for record in ENDED.records if record.is_whole]
    history = history_figure(optunas(ENDED), ENDED)
    shown = next(trace for trace in history.data if trace.mode == "markers")
    assert list(shown.x) == [record.number for record in whole]
    assert list(shown.y) == [record.score for record in whole]
    rungs = rung_figure(optunas(ENDED), ENDED)
    assert list(rungs.layout.xaxis.ticktext) == list(ENDED.rungs)
    assert {tuple(trace.y) for trace in rungs.data} == {
        tuple(score.score for score in record.scores) for record in ENDED.records if record.scores
    }


def test_the_scores_over_a_cost_mark_the_best_and_the_budget() -> None:
    figure = pareto_figure(ENDED)
    partial, whole, best = figure.data
    counts = ENDED.counts()
    assert (len(whole.x), len(partial.x)) == (counts["complete"], counts["pruned"])
    assert ENDED.best is not None
    assert (list(best.y), best.name) == ([ENDED.best.score], "best")
    assert f"trial {ENDED.best.number}" in best.text[0]
    budget = next(shape for shape in figure.layout.shapes if shape.x0 == shape.x1)
    assert budget.x0 == ENDED.limits["macs"] / ENDED.dense_costs["macs"]
    assert list(pareto_figure(ENDED, "params").data[2].x) == [ENDED.share(ENDED.best, "params")]
    front = dataclasses.replace(ENDED, front=ENDED.records[:2], objectives=("score", "params"))
    assert (pareto_figure(front).data[2].name, len(pareto_figure(front).data[2].x)) == ("Pareto front", 2)


def test_the_importances_are_bars_with_the_largest_on_top() -> None:
    (bars,) = importance_figure(ENDED).data
    assert dict(zip(bars.y, bars.x, strict=True)) == ENDED.importances
    assert bars.y[-1] == "conv1"  # plotly draws the last bar at the top


def test_a_study_without_scores_says_why_it_is_not_drawn() -> None:
    with pytest.raises(StudyError, match="s: no trial is complete, so there is nothing to draw"):
        history_figure(optunas(HOPELESS), HOPELESS)
    for draw in (pareto_figure, lambda summary: rung_figure(optunas(summary), summary)):
        with pytest.raises(StudyError, match="s: no trial has a score"):
            draw(HOPELESS)
    with pytest.raises(StudyError, match="s: importances need 20 complete trials under one budget"):
        importance_figure(SUMMARY)
    with pytest.raises(StudyError, match="s: its trials have no cost latency_ms, but macs, params"):
        pareto_figure(ENDED, "latency_ms")


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("pandas", "plotly.graph_objects"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=r'needs the package pandas .*: pip install "autoprune\[plotly\]"'):
        trial_frame(SUMMARY)
    with pytest.raises(ConfigError, match="an interactive figure needs the package plotly"):
        pareto_figure(SUMMARY)
