"""Prints the results that have several tables. Modules that make tables are imported at their first use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType

from autoprune.cli._console import console
from autoprune.cli._output import output, print_notes, show

if TYPE_CHECKING:
    from autoprune.reporting import BudgetCurve, Curves
    from autoprune.run import FlowComparison, Report, SearchResult


def show_search(result: SearchResult) -> None:
    from autoprune.reporting import summary_notes

    if output.json:
        _ = result.best  # raises if no trial is complete
    page = [] if result.page is None else [f"Report in {result.page}."]
    show(
        result,
        lambda: _search_tables(result),
        lambda: [*summary_notes(result.summary), *page, result.next_step],
    )


def _search_tables(result: SearchResult) -> Iterator[RenderableType]:
    from autoprune.reporting import failure_table, front_table, race_table, trial_table, widths_table

    summary = result.summary
    several = len(summary.objectives) > 1
    yield front_table(summary) if several else trial_table(summary, most=5)
    if summary.failures():
        yield failure_table(summary)
    if summary.race is not None:
        yield race_table(summary)
    yield widths_table(summary, result.best)  # raises if no trial is complete


def show_curves(curves: Curves) -> None:
    from autoprune.reporting import curve_notes, curve_table

    show(curves, lambda: [curve_table(curves)], lambda: curve_notes(curves))


def show_budget_curve(curve: BudgetCurve) -> None:
    from autoprune.reporting import budget_notes, budget_table

    show(curve, lambda: [budget_table(curve)], lambda: budget_notes(curve))


def show_flows(comparisons: Sequence[FlowComparison]) -> None:
    from autoprune.run import comparison_notes, comparison_table

    if output.json:
        show(tuple(comparisons))
    elif output.quiet < 2:
        for compared in comparisons:
            console.print(comparison_table(compared))
            print_notes(comparison_notes(compared))


def show_report(found: Report) -> None:
    from autoprune.reporting import summary_notes

    plots = ", ".join(str(path) for path in (found.plot, found.stairs) if path is not None)
    written = f"Plotted in {plots}." if plots else "No trial has a score: no plot."
    if found.page is not None:
        written = f"Report in {found.page}."
    step = [found.next_step] if found.next_step else []
    show(found, lambda: _report_tables(found), lambda: [written, *summary_notes(found.summary), *step])


def _report_tables(found: Report) -> Iterator[RenderableType]:
    from autoprune.reporting import failure_table, front_table, race_table, trial_table
    from autoprune.run import pruned_table

    summary = found.summary
    yield trial_table(summary)
    if summary.front:
        yield front_table(summary)
    if summary.race is not None:
        yield race_table(summary)
    if summary.failures():
        yield failure_table(summary)
    for result in found.finetuned:
        yield pruned_table(result)
