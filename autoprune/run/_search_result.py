"""The result of a search that has all its trials."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from autoprune.errors import TrialError
from autoprune.report import StudySummary
from autoprune.study import TrialRecord


@dataclass(frozen=True)
class SearchResult:
    """A search that has all its trials."""

    study: str
    storage: str = field(repr=False)  # may hold a password
    output: Path
    summary: StudySummary
    next_step: str = ""

    @property
    def best(self) -> TrialRecord:
        """The best complete trial.

        Raises:
            TrialError: there is none.
        """
        if self.summary.best is None:
            failures = self.summary.failures()
            most = f", {len(failures[0].trials)} of them with: {failures[0].reason}" if failures else "."
            raise TrialError(f"{self.study}: none of {len(self.summary.records)} trials completed{most}")
        return self.summary.best

    @property
    def front(self) -> tuple[TrialRecord, ...]:
        """The trials that none dominates, the cheapest first, if there are several objectives."""
        return self.summary.front
