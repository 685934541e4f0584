"""Reports: a study as numbers, as tables and as a plot.

Before: `study` holds the records; after: the command line and the user.

    summary = summarise(open_study("sqlite:///runs/digits.db", "digits"))
    plot_study(summary, "digits.png")
"""

from __future__ import annotations

from autoprune.report.agreement import RungAgreement
from autoprune.report.curves import Curve, Curves, curve_notes, curve_table, save_curves
from autoprune.report.plot import plot_study
from autoprune.report.stairs import plot_stairs
from autoprune.report.summary import Failure, StudySummary, summarise
from autoprune.report.tables import (
    cost_table,
    failure_table,
    front_table,
    summary_notes,
    trial_table,
    widths_table,
)

__all__ = [
    "Curve",
    "Curves",
    "Failure",
    "RungAgreement",
    "StudySummary",
    "cost_table",
    "curve_notes",
    "curve_table",
    "failure_table",
    "front_table",
    "plot_stairs",
    "plot_study",
    "save_curves",
    "summarise",
    "summary_notes",
    "trial_table",
    "widths_table",
]
