"""The result of a search.

Example:
    result = autoprune.search(model, data, {"budget": {"flops": "50%"}})
    result.best.score, result.plan.widths
    result.finetune().export("small.onnx")
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import optuna
from rich.table import Table
from torch import nn

from autoprune.errors import TrialError
from autoprune.exporting import ExportReport
from autoprune.graph import Plan
from autoprune.progress import Watch
from autoprune.reporting import (
    StudySummary,
    Verdict,
    cost_table,
    failure_table,
    headline,
    history_figure,
    importance_figure,
    pareto_figure,
    rung_figure,
    trial_frame,
    trial_table,
    widths_table,
)
from autoprune.run._checks.stored_run import open_run
from autoprune.run._checks.trust import consent_of
from autoprune.run._export import export_saved, saved_model_folder
from autoprune.run._finetune import finetune
from autoprune.run._report import Report, report
from autoprune.run._resolving.dense import given_dense
from autoprune.run._resolving.resolve import resolve_stored
from autoprune.run._resolving.session import Session
from autoprune.run._results.finetune_result import FinetuneResult
from autoprune.run._results.saved_model import load_saved
from autoprune.run._trials.cut_trial import plan_of_trial
from autoprune.study import TrialRecord, open_study
from autoprune.support.events import silent
from autoprune.support.notebook import Shown


@dataclass(frozen=True, repr=False)
class SearchResult(Shown):
    """The result of a search whose trials have all ended.

    Attributes:
        name: name of the study.
        storage: URL of its storage.
        output: the output folder.
        summary: the trials and figures of the study.
        next_step: a line that names the next command, or "" without a best trial.
        page: the HTML report, or None if it could not be written.
        session: the objects that the caller of `search` has passed.
    """

    name: str
    storage: str
    output: Path
    summary: StudySummary
    next_step: str = ""
    page: Path | None = None
    session: Session = field(default_factory=Session, compare=False)

    def _headline(self) -> str:
        return f"{self.name}: {headline(self.summary)}"

    def _tables(self) -> list[Table]:
        best = self.summary.best
        if best is None:
            return [failure_table(self.summary)]
        return [
            cost_table(self.summary, best),
            trial_table(self.summary, most=5),
            widths_table(self.summary, best),
        ]

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
    def place(self) -> tuple[str, str]:
        """The name of the study and the URL of its storage."""
        return self.name, self.storage

    @cached_property
    def plan(self) -> Plan:
        """The channels that the best model keeps. The dense model is loaded and traced for it.

        Raises:
            TrialError: no trial is complete.
        """
        best = self.best
        with open_run(self.name, self.storage, config=self.session.config) as stored:
            given = given_dense(self.session.model, self.session.data, stored.running)
            run = resolve_stored(stored.study, stored.running, given, silent)
            return plan_of_trial(run, stored.study, best)

    @cached_property
    def model(self) -> nn.Module:
        """The best model, trained, on the CPU and in evaluation mode.

        The winner of a race is trained already, and so is the best model of a search whose rungs train
        nothing. It is then tested and saved first, as `finetune` does. Otherwise call `finetune`, which
        trains it.

        Raises:
            ExportError: the best model is not trained yet.
        """
        opened = open_study(self.storage, self.name)
        folder = saved_model_folder(opened, consent_of(False, self.session.config), self.session)
        return load_saved(folder, model=self.session.model).eval()

    def finetune(
        self,
        *,
        trial: int | None = None,
        overrides: Sequence[str] = (),
        watch: Watch = True,
    ) -> FinetuneResult:
        """Retrain the best trial or a chosen one, evaluate it once on the test part, and save it.

        The arguments are those of `autoprune.finetune`.
        """
        return finetune(self, trial=trial, overrides=overrides, watch=watch)

    def export(self, path: str | os.PathLike[str] | None = None, format: str = "onnx") -> ExportReport:
        """Export the best model, as `autoprune.export` does. By default it lies next to the saved model.

        Raises:
            ExportError: the best model is not trained yet, and neither a race nor rungs have trained it.
        """
        return export_saved(self.name, format, output=path, storage=self.storage, session=self.session)

    def report(self, path: str | os.PathLike[str] | None = None) -> Report:
        """Write the HTML report to a file, by default report.html in the output folder."""
        return report(self, output=path, html=True)

    @property
    def verdict(self) -> Verdict | None:
        """The gain of the winner over one keep ratio for all groups, or None without a race."""
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
