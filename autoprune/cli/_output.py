"""Prints the results of commands. Modules that make tables are imported at their first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from autoprune.cli._console import console

if TYPE_CHECKING:
    from autoprune.progress import Screen
    from autoprune.reporting import BudgetCurve, Curves
    from autoprune.run import SearchResult


def print_search(result: SearchResult) -> None:
    from autoprune.reporting import (
        failure_table,
        front_table,
        race_table,
        summary_notes,
        trial_table,
        widths_table,
    )

    several = len(result.summary.objectives) > 1
    console.print(front_table(result.summary) if several else trial_table(result.summary, most=5))
    if result.summary.failures():
        console.print(failure_table(result.summary))
    if result.summary.race is not None:
        console.print(race_table(result.summary))
    _ = result.best  # raises if no trial is complete
    console.print(widths_table(result.summary, result.summary.best))
    notes = summary_notes(result.summary)
    page = [] if result.page is None else [f"Report in {result.page}."]
    print_notes([*notes, *page, result.next_step])


def print_curves(curves: Curves) -> None:
    from autoprune.reporting import curve_notes, curve_table

    console.print(curve_table(curves))
    print_notes(curve_notes(curves))


def print_budget_curve(curve: BudgetCurve) -> None:
    from autoprune.reporting import budget_notes, budget_table

    console.print(budget_table(curve))
    print_notes(budget_notes(curve))


def print_notes(notes: list[str]) -> None:
    for note in notes:
        console.print(note, soft_wrap=True, highlight=False)


def screen() -> Screen:
    from autoprune.progress import Screen

    return Screen(console)
