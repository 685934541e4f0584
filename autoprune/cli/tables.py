"""How the command line shows an inspection and a finetuned model.

Before: results of `pipeline`; after: the terminal. Tables of a study are `report`'s.

    console.print(group_table(pipeline.inspect(config)))
"""

from __future__ import annotations

from rich.table import Table

from autoprune.graph import Cost
from autoprune.graph.prunable import Counts
from autoprune.pipeline import FinetuneResult, Inspection

_SHOWN_LAYERS = 3


def amount(number: float) -> str:
    """Write a count with a unit: 20312576 as "20.3 M"."""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def group_table(inspection: Inspection) -> Table:
    """Draw the channel groups of a model and what they carry."""
    table = Table(title=f"Channel groups of {inspection.model}", title_justify="left")
    for column in ("group", "width", "layers", "MACs", "params", "notes"):
        table.add_column(column, justify="right" if column in ("width", "MACs", "params") else "left")
    for row in inspection.groups:
        notes = [
            f"frozen: {row.frozen}" if row.frozen else "",
            f"crosses {row.crosses}" if row.crosses else "",
            f"too small for the divisor: step {row.relaxed_step}" if row.relaxed_step else "",
        ]
        more = len(row.layers) - _SHOWN_LAYERS
        layers = ", ".join(row.layers[:_SHOWN_LAYERS]) + (f" and {more} more" if more > 0 else "")
        table.add_row(
            row.name,
            str(row.width),
            layers,
            amount(row.macs),
            amount(row.params),
            "; ".join(note for note in notes if note),
        )
    return table


def inspection_table(inspection: Inspection) -> Table:
    """Draw the dense cost, the reachable budgets and the memory that a search will need."""
    dense = inspection.dense_cost
    table = Table(title="Budget", title_justify="left")
    for column in ("", "MACs", "FLOPs", "params"):
        table.add_column(column, justify="left" if not column else "right")
    table.add_row("dense", *_costs(dense, dense))
    table.add_row("largest reachable", *_costs(inspection.largest, dense))
    table.add_row("smallest reachable", *_costs(inspection.smallest, dense))
    if inspection.budget is not None:
        macs, params = inspection.budget.macs, inspection.budget.params
        table.add_row(
            "asked",
            _share(macs, dense.macs),
            _share(None if macs is None else 2 * macs, dense.flops),
            _share(params, dense.params),
        )
    return table


def inspection_notes(inspection: Inspection) -> list[str]:
    """Say in sentences whether the budget can be met, and what the search will need."""
    notes = [f"{inspection.variables} keep ratios are searched."]
    if inspection.problem:
        notes.append(f"The budget cannot be met: {inspection.problem}")
    elif not inspection.in_window:
        notes.append("No plan fills the budget to 98%: the search takes the nearest below.")
    notes.append(f"The search needs about {amount(inspection.memory_bytes)}B beside PyTorch itself.")
    return notes


def finetune_table(result: FinetuneResult) -> Table:
    """Draw the finetuned model beside the dense one."""
    table = Table(title="Finetuned", title_justify="left")
    for column in ("", "MACs", "params", "validation", "test"):
        table.add_column(column, justify="left" if not column else "right")
    for label, cost, val, test in (
        ("dense", result.dense_cost, result.dense_val_score, result.dense_test_score),
        ("pruned", result.cost, result.val_score, result.test_score),
    ):
        table.add_row(
            label,
            _share(int(cost.macs), result.dense_cost.macs),
            _share(int(cost.params), result.dense_cost.params),
            f"{val:.4f}",
            "-" if test is None else f"{test:.4f}",
        )
    return table


def _costs(cost: Cost, dense: Cost) -> tuple[str, str, str]:
    return (
        _share(int(cost.macs), dense.macs),
        _share(int(cost.flops), dense.flops),
        _share(int(cost.params), dense.params),
    )


def _share(number: int | None, whole: Counts) -> str:
    if number is None:
        return "any"
    return f"{amount(number)} ({number / int(whole):.1%})"
