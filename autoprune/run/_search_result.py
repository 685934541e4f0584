"""The result of a search."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autoprune.errors import TrialError
from autoprune.reporting import StudySummary, Verdict
from autoprune.study import TrialRecord


@dataclass(frozen=True)
class SearchResult:
    """The result of a search whose trials have all ended.

    Attributes:
        study: name of the study.
        storage: URL of its storage.
        output: the output folder.
        summary: the trials and figures of the study.
        next_step: a line that names the next command, or "" without a best trial.
        page: the HTML report, or None if it could not be written.
    """

    study: str
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
            raise TrialError(f"{self.study}: none of {len(self.summary.records)} trials completed{most}")
        return self.summary.best

    @property
    def verdict(self) -> Verdict | None:
        """What the winner gains over one keep ratio for all groups, or None without a race."""
        return self.summary.verdict

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials of the Pareto front, the cheapest first, or () with a single objective."""
        return self.summary.front
