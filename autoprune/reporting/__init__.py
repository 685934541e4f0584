"""Report a study as numbers, as tables, as a plot and as an HTML page.

Example:
    summary = summarise(open_study("sqlite:///runs/digits.db", "digits"))
    plot_study(summary, "digits.png")
"""

from __future__ import annotations

from autoprune.reporting._agreement import RungAgreement
from autoprune.reporting._budget_curve import (
    BudgetCurve,
    BudgetPoint,
    budget_notes,
    budget_table,
    save_budget_curve,
)
from autoprune.reporting._conclusions import headline
from autoprune.reporting._curves import CURVE_FORMATS, Curve, Curves, curve_notes, curve_table, save_curves
from autoprune.reporting._figures import history_figure, importance_figure, pareto_figure, rung_figure
from autoprune.reporting._frame import trial_frame
from autoprune.reporting._histograms import Histograms, save_histograms
from autoprune.reporting._html_charts import Savings
from autoprune.reporting._html_page import Epoch, Page, Tuned, save_page
from autoprune.reporting._notes import cost_notes, summary_notes
from autoprune.reporting._pictures import FORMATS, format_of
from autoprune.reporting._plot import plot_study
from autoprune.reporting._rows import CostRow, cost_rows
from autoprune.reporting._staircase import plot_stairs
from autoprune.reporting._summary import Failure, StudySummary, summarise
from autoprune.reporting._tables import (
    cost_table,
    failure_table,
    front_table,
    next_command,
    plain_table,
    race_table,
    trial_table,
    widths_table,
)
from autoprune.reporting._tolerance import tolerance_notes
from autoprune.reporting._verdict import Verdict, paired_interval

__all__ = [
    "CURVE_FORMATS",
    "FORMATS",
    "BudgetCurve",
    "BudgetPoint",
    "CostRow",
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
    "cost_rows",
    "cost_table",
    "curve_notes",
    "curve_table",
    "failure_table",
    "format_of",
    "front_table",
    "headline",
    "history_figure",
    "importance_figure",
    "next_command",
    "paired_interval",
    "pareto_figure",
    "plain_table",
    "plot_stairs",
    "plot_study",
    "race_table",
    "rung_figure",
    "save_budget_curve",
    "save_curves",
    "save_histograms",
    "save_page",
    "summarise",
    "summary_notes",
    "tolerance_notes",
    "trial_frame",
    "trial_table",
    "widths_table",
]
