"""Report a study as numbers, as tables, as a plot and as an HTML page.

Example:
    summary = summarise(open_study("sqlite:///runs/digits.db", "digits"))
    plot_study(summary, "digits.png")
"""

from __future__ import annotations

from autoprune.report._agreement import RungAgreement
from autoprune.report._budget_curve import (
    BudgetCurve,
    BudgetPoint,
    budget_notes,
    budget_table,
    save_budget_curve,
)
from autoprune.report._curves import CURVE_FORMATS, Curve, Curves, curve_notes, curve_table, save_curves
from autoprune.report._histograms import Histograms, save_histograms
from autoprune.report._html_charts import Savings
from autoprune.report._html_page import Epoch, Page, Tuned, save_page
from autoprune.report._notes import cost_notes, summary_notes
from autoprune.report._pictures import FORMATS, format_of
from autoprune.report._plot import plot_study
from autoprune.report._staircase import plot_stairs
from autoprune.report._summary import Failure, StudySummary, summarise
from autoprune.report._tables import (
    cost_table,
    failure_table,
    front_table,
    next_command,
    plain_table,
    race_table,
    trial_table,
    widths_table,
)
from autoprune.report._tolerance import tolerance_notes
from autoprune.report._verdict import Verdict

__all__ = [
    "CURVE_FORMATS",
    "FORMATS",
    "BudgetCurve",
    "BudgetPoint",
    "Curve",
    "Curves",
    "Epoch",
    "Failure",
    "Histograms",
    "Page",
    "RungAgreement",
    "Savings",
    "StudySummary",
    "Tuned",
    "Verdict",
    "budget_notes",
    "budget_table",
    "cost_notes",
    "cost_table",
    "curve_notes",
    "curve_table",
    "failure_table",
    "format_of",
    "front_table",
    "next_command",
    "plain_table",
    "plot_stairs",
    "plot_study",
    "race_table",
    "save_budget_curve",
    "save_curves",
    "save_histograms",
    "save_page",
    "summarise",
    "summary_notes",
    "tolerance_notes",
    "trial_table",
    "widths_table",
]
