"""The result of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna

from autoprune.errors import TrialError
from autoprune.reporting import (
    StudySummary,
    Verdict,
    history_figure,
    importance_figure,
    pareto_figure,
    rung_figure,
    trial_frame,
)
from autoprune.study import TrialRecord, open_study


@dataclass(frozen=True)
class SearchResult:
    """The result of a search whose trials have all ended.

    Attributes:
        name: name of the study.
        storage: URL of its storage.
        output: the output folder.
        summary: the trials and figures of the study.
        next_step: a line that names the next command, or "" without a best trial.
        page: the HTML report, or None if it could not be written.
    """

    name: str
    storage: str = field(repr=False)  # may hold a password
    output: Path
    summary: StudySummary
    next_step: str = ""
    page: Path | None = None

    @property
    def best(self) -> TrialRecord:
        """The winner of the race, or the best complete trial if there was no race.

        Raises:
            TrialError: no trial is complete.
        """
        if self.summary.best is None:
            failures = self.summary.failures()
            most = f", {len(failures[0].trials)} of them with: {failures[0].reason}" if failures else "."
            raise TrialError(f"{self.name}: none of {len(self.summary.records)} trials completed{most}")
        return self.summary.best

    @property
    def verdict(self) -> Verdict | None:
        """What the winner gains over one keep ratio for all groups, or None without a race."""
        return self.summary.verdict

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials of the Pareto front, the cheapest first, or () with a single objective."""
        return self.summary.front

    @cached_property
    def study(self) -> optuna.Study:
        """The Optuna study in its storage, for Optuna's own plots, importances and dashboard.

        Raises:
            StudyError: the storage is not there any more.
        """
        return open_study(self.storage, self.name).optuna

    def to_dataframe(self) -> Any:
        """Return a pandas DataFrame with a row for each trial: its origin, outcome, scores, costs and widths.

        Raises:
            ConfigError: pandas is not installed.
        """
        return trial_frame(self.summary)

    def plot_history(self) -> Any:
        """Return a plotly figure of the scores in the order of the trials, with the best so far.

        Raises:
            ConfigError: plotly is not installed.
            StudyError: no trial is complete.
        """
        return history_figure(self.study, self.summary)

    def plot_pareto(self, cost: str | None = None) -> Any:
        """Return a plotly figure of the scores over a cost, such as "macs", "params" or "latency_ms".

        Raises:
            ConfigError: plotly is not installed.
            StudyError: no trial has a score, or the study does not know this cost.
        """
        return pareto_figure(self.summary, cost)

    def plot_importance(self) -> Any:
        """Return a plotly figure of the keep ratios that explain the differences between scores.

        Raises:
            ConfigError: plotly is not installed.
            StudyError: the study has too few complete trials.
        """
        return importance_figure(self.summary)

    def plot_rungs(self) -> Any:
        """Return a plotly figure of the score of each trial after each rung.

        Raises:
            ConfigError: plotly is not installed.
            StudyError: no trial has a score.
        """
        return rung_figure(self.study, self.summary)
