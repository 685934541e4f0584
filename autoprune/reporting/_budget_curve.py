"""Show the predicted error of the best plan at each of several budgets, as a table, a picture or CSV.

Example:
    console.print(budget_table(curve))
    save_budget_curve(curve, "budgets.png")        # or .svg, .pdf, .csv
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from autoprune.cost import COSTS
from autoprune.reporting._csv_file import save_csv
from autoprune.reporting._curves import CSV, CURVE_FORMATS
from autoprune.reporting._pictures import format_of, save_picture
from autoprune.reporting._tables import plain_table


@dataclass(frozen=True)
class BudgetPoint:
    """The plan with the least predicted error within one budget.

    Attributes:
        limit: the budget as text, such as "30%".
        error: the sum of the output errors of all groups.
        costs: {cost: that of the plan}.
        widths: {group: width} of the plan.
    """

    limit: str
    error: float
    costs: Mapping[str, float]
    widths: Mapping[str, int]


@dataclass(frozen=True)
class BudgetCurve:
    """The predicted error over the budget.

    Attributes:
        study: name of the study whose error library predicts.
        key: the key of [budget] that is varied.
        cost: the cost that it limits.
        points: by ascending budget.
        dense_costs: {cost: the dense model's}.
        files: files to which the curve was written.
    """

    study: str
    key: str
    cost: str
    points: tuple[BudgetPoint, ...]
    dense_costs: Mapping[str, float]
    files: tuple[Path, ...] = ()

    def share(self, point: BudgetPoint, cost: str) -> float:
        """Return a cost of a plan as a share of the dense model's."""
        return point.costs[cost] / self.dense_costs[cost]


def budget_table(curve: BudgetCurve) -> Table:
    """Return a table with a row for each budget: the predicted error and the costs of the plan."""
    table = plain_table(f"Least predicted error within a budget, by the error library of {curve.study}")
    for heading in (curve.key, "error", *(COSTS[cost].label for cost in curve.dense_costs)):
        table.add_column(heading, justify="right", no_wrap=True)
    for point in curve.points:
        shares = [f"{curve.share(point, cost):.1%}" for cost in curve.dense_costs]
        table.add_row(point.limit, f"{point.error:.4f}", *shares)
    return table


def budget_notes(curve: BudgetCurve) -> list[str]:
    """Return sentences on the meaning of the error, and on the files that were written."""
    meaning = (
        "The error is the share of the outputs lost in the layers that read each group, added up, before any "
        "training. It compares budgets of one model, and is no accuracy."
    )
    written = [f"Wrote {', '.join(map(str, curve.files))}."] if curve.files else []
    return [meaning, *written]


def save_budget_curve(curve: BudgetCurve, path: str | os.PathLike[str]) -> Path:
    """Write a curve to a file, as a picture or as CSV with a row for each budget, by its suffix.

    Raises:
        ConfigError: the file's name ends in none of CURVE_FORMATS.
        StudyError: the file cannot be written. An existing file is not changed.
    """
    if format_of(path, CURVE_FORMATS) != CSV:
        return _draw(curve, path)
    groups = list(curve.points[0].widths)
    rows = [
        (
            point.limit,
            f"{point.error:.6g}",
            *(point.costs[cost] for cost in curve.dense_costs),
            *(point.widths[group] for group in groups),
        )
        for point in curve.points
    ]
    return save_csv(Path(path), (curve.key, "error", *curve.dense_costs, *groups), rows)


def _draw(curve: BudgetCurve, path: str | os.PathLike[str]) -> Path:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    shares = [100 * curve.share(point, curve.cost) for point in curve.points]
    axes.plot(shares, [point.error for point in curve.points], marker="o", color="#4477aa")
    axes.set_xlabel(f"{COSTS[curve.cost].label} of the plan, % of the dense model")
    axes.set_ylabel("predicted error, nothing trained")
    axes.set_ylim(bottom=0)
    axes.set_title(curve.study)
    axes.grid(alpha=0.3)
    return save_picture(figure, path)
