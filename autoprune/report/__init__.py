"""Reports: a study as numbers, as tables and as a plot.

Before: `study` holds the records; after: the command line and the user.

    summary = summarise(open_study("sqlite:///runs/digits.db", "digits"))
    plot_study(summary, "digits.png")
"""

from __future__ import annotations

from autoprune.report.plot import plot_study
from autoprune.report.summary import RungAgreement, StudySummary, summarise
from autoprune.report.tables import best_table, summary_notes, trial_table

__all__ = [
    "RungAgreement",
    "StudySummary",
    "best_table",
    "plot_study",
    "summarise",
    "summary_notes",
    "trial_table",
]
