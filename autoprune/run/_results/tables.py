"""Tables and notes of inspections, timings and finetuned models.

Example:
    console.print(group_table(run.inspect(config)))
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from autoprune.config import presets
from autoprune.cost import COSTS, amount
from autoprune.flow import NEEDS
from autoprune.graph import Cost
from autoprune.graph.prunable import Counts
from autoprune.reporting import plain_table
from autoprune.run._resolving.problem import SHORT_OF_WINDOW

if TYPE_CHECKING:  # these modules import this one, so that their results can be shown
    from autoprune.run._bench import Bench
    from autoprune.run._inspect import CostRange, Inspection
    from autoprune.run._int8 import Int8Report
    from autoprune.run._results.finetune_result import FinetuneResult
    from autoprune.run._results.flow_report import FlowComparison
    from autoprune.run._results.flow_result import FlowResult

_SHOWN_NAMES = 3


def group_table(inspection: Inspection) -> Table:
    """Return a table of a model's channel groups and their costs, one row per group."""
    table = plain_table(f"Channel groups of {inspection.model}")
    table.add_column("group", overflow="fold")
    for column in ("width", "layers", "MACs", "params", "state"):
        table.add_column(column, justify="left" if column == "state" else "right", no_wrap=True)
    for row in inspection.groups:
        step = f"step {row.relaxed_step}" if row.relaxed_step else ""
        table.add_row(
            row.name,
            str(row.width),
            str(len(row.layers)),
            amount(row.macs),
            amount(row.params),
            "frozen" if row.frozen else step,
        )
    return table


def block_table(inspection: Inspection) -> Table:
    """Return a table of the residual branches that a search may drop, one row per branch."""
    table = plain_table(f"Droppable blocks of {inspection.model}")
    table.add_column("block", overflow="fold")
    for column in ("groups inside", "MACs", "params"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in inspection.blocks:
        table.add_row(row.name, str(len(row.groups)), amount(row.macs), amount(row.params))
    return table


def inspection_table(inspection: Inspection) -> Table:
    """Return a table of the dense cost, the reachable range and the budget, for each relevant cost."""
    dense = inspection.dense_cost
    others = {cost: each for cost, each in inspection.costs.items() if cost not in ("macs", "params")}
    table = Table(title="Budget", title_justify="left")
    for column in ("", "MACs", "FLOPs", "params", *(COSTS[cost].label for cost in others)):
        table.add_column(column, justify="left" if not column else "right")
    for name, cost, place in (
        ("dense", dense, "dense"),
        ("largest reachable", inspection.largest, "largest"),
        ("smallest reachable", inspection.smallest, "smallest"),
    ):
        amounts = [_amount_text(key, getattr(each, place), each) for key, each in others.items()]
        table.add_row(name, *_costs(cost, dense), *amounts)
    if inspection.budget is not None:
        limits = inspection.budget.limits
        macs, params = limits.get("macs"), limits.get("params")
        table.add_row(
            "requested",
            _share(macs, dense.macs),
            _share(None if macs is None else 2 * macs, dense.flops),
            _share(params, dense.params),
            *(_amount_text(key, limits.get(key), each) for key, each in others.items()),
        )
    return table


def inspection_notes(inspection: Inspection) -> list[str]:
    """Return notes on frozen groups and their reasons, on the budget, and on the memory of a search."""
    notes = [
        *_grouped((row.name, f"frozen ({row.frozen})" if row.frozen else "") for row in inspection.groups),
        *_grouped((row.name, f"crosses {row.crosses}" if row.crosses else "") for row in inspection.groups),
        *_grouped(
            (
                row.name,
                f"too small for the divisor, in steps of {row.relaxed_step}" if row.relaxed_step else "",
            )
            for row in inspection.groups
        ),
        f"{inspection.variables} keep ratio{' is' if inspection.variables == 1 else 's are'} searched.",
        *(["Blocks may be dropped too."] if inspection.drops_blocks else []),
    ]
    if inspection.outside_params:
        stay = f"{amount(inspection.outside_params)} parameters outside of it stay"
        notes.append(f"Costs are those of model.target alone: {stay}.")
    if inspection.problem:
        notes.append(f"The budget cannot be met: {inspection.problem}")
    elif not inspection.in_window:
        notes.append(SHORT_OF_WINDOW)
    if inspection.few_plans:
        notes.append(f"Only {inspection.few_plans}.")
    elif inspection.plans is not None:
        plans = (
            "1 distinct plan meets" if inspection.plans == 1 else f"{inspection.plans} distinct plans meet"
        )
        notes.append(f"{plans} the budget.")
    notes.append(f"The search needs about {amount(inspection.memory_bytes)}B in addition to PyTorch itself.")
    return notes


def bench_table(bench: Bench) -> Table:
    """Return a table of the times of models, with 95% intervals of medians and ratios."""
    threads = f"{bench.threads} thread{'s' if bench.threads > 1 else ''}"
    table = plain_table(f"One forward pass at batch {bench.batch} on {bench.device}, {threads}")
    table.add_column("model", overflow="fold", min_width=10)
    table.add_column("runtime")
    for column in ("median\nms", "95% interval", "p90\nms", "ratio", "95% interval"):
        table.add_column(column, justify="right", no_wrap=True)
    for row in bench.rows:
        table.add_row(
            str(row.path),
            row.runtime,
            _digits(row.measurement.median_ms),
            " to ".join(map(_digits, row.measurement.interval_ms)),
            _digits(row.measurement.p90_ms),
            "" if row.ratio is None else _digits(row.ratio.ratio),
            "" if row.ratio is None else " to ".join(map(_digits, row.ratio.interval)),
        )
    return table


def int8_table(report: Int8Report) -> Table:
    """Return a table of an int8 file next to the float file that it was made from."""
    table = plain_table("int8 against float, in ONNX Runtime on one thread of this CPU")
    table.add_column("")
    for column in ("float", "int8"):
        table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(*row)
    return table


def bench_notes(bench: Bench) -> list[str]:
    """Return a note on the intervals that were wider than the tolerance at the time limit."""
    judged = [(row, row.ratio or row.measurement) for row in bench.rows if row.ratio or len(bench.rows) == 1]
    loose = [str(row.path) for row, value in judged if not value.tight]
    if not loose:
        return []
    return [f"Tolerance not reached within the time limit: {', '.join(loose)}. Raise --limit or --tolerance."]


def method_notes() -> list[str]:
    """Return lines about each preset of a flow: its method, its paper, its needs and its command."""
    notes = []
    for preset in presets().values():
        needs = ", ".join(NEEDS[name].about for name in preset.needs) or "any model"
        notes += [
            f"{preset.name}: {preset.about}",
            f"    {preset.paper}",
            f"    needs {needs}",
            f"    autoprune prune CONFIG.toml --method {preset.name}",
        ]
    return notes


def flow_table(result: FlowResult) -> Table:
    """Return a table of the stages of a flow, with score and costs after each."""
    table = plain_table(f"Flow{'' if result.method is None else f' {result.method}'}")
    for column in ("pass", "stage", "MACs", "params", "validation", "seconds"):
        table.add_column(column, justify="left" if column == "stage" else "right", no_wrap=True)
    for entry in result.stages:
        table.add_row(
            str(entry.number),
            entry.stage,
            _share(entry.cost["macs"], result.dense_cost.macs),
            _share(entry.cost["params"], result.dense_cost.params),
            "" if entry.score is None else f"{entry.score:.4f}",
            f"{entry.seconds:.1f}",
        )
    return table


def comparison_table(compared: FlowComparison) -> Table:
    """Return a table of finished flows of one dense model, the best first."""
    table = plain_table(f"Flows by {compared.metric}")
    table.add_column("flow", overflow="fold")
    table.add_column("settings that differ", overflow="fold")
    for column in ("MACs", "validation"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_row("dense", "", "100.0%", f"{compared.dense_score:.4f}")
    for flow in compared.flows:
        settings = ", ".join(f"{key}={value}" for key, value in flow.settings.items())
        table.add_row(str(flow.folder), settings, f"{flow.share:.1%}", f"{flow.val_score:.4f}")
    return table


def comparison_notes(compared: FlowComparison) -> list[str]:
    """Return a line for each setting whose values were measured under the same other settings."""
    return [
        f"{key}, by the mean score with all other settings equal: "
        f"{', '.join(f'{value} {score:.4f}' for value, score in ranking)}."
        for key, ranking in compared.rankings.items()
    ]


def pruned_table(result: FlowResult | FinetuneResult) -> Table:
    """Return a table of the small model and the dense one."""
    trial = getattr(result, "trial", None)  # a flow has none
    table = Table(title="Result" if trial is None else f"Finetuned: trial {trial}", title_justify="left")
    for column in ("", "MACs", "params", "validation", "test"):
        table.add_column(column, justify="left" if not column else "right")
    for name, cost, val, test in (
        ("dense", result.dense_cost, result.dense_val_score, result.dense_test_score),
        ("pruned", result.cost, result.val_score, result.test_score),
    ):
        table.add_row(
            name,
            _share(int(cost.macs), result.dense_cost.macs),
            _share(int(cost.params), result.dense_cost.params),
            f"{val:.4f}",
            "-" if test is None else f"{test:.4f}",
        )
    return table


def scores_line(result: FlowResult | FinetuneResult) -> str:
    """Return the score and the MACs of a small model next to those of the dense one, in one line."""
    share = int(result.cost.macs) / int(result.dense_cost.macs)
    small, dense, part = result.test_score, result.dense_test_score, "test"
    if small is None or dense is None:
        small, dense, part = result.val_score, result.dense_val_score, "validation"
    return f"{part} score {small:.4f} at {share:.1%} of the MACs, dense {dense:.4f}"


def _digits(number: float) -> str:
    """Format a number with three significant digits: 12.3456 as "12.3", 0.9 as "0.900"."""
    decimals = max(0, 2 - math.floor(math.log10(number)))
    return f"{number:.{decimals}f}"


def _grouped(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Return one line for each text, with the names that share it. Names with an empty text are left out."""
    names: dict[str, list[str]] = {}
    for name, saying in pairs:
        if saying:
            names.setdefault(saying, []).append(name)
    return [
        f"{', '.join(each[:_SHOWN_NAMES])}"
        f"{f' and {len(each) - _SHOWN_NAMES} more' if len(each) > _SHOWN_NAMES else ''}: {saying}"
        for saying, each in names.items()
    ]


def _costs(cost: Cost, dense: Cost) -> tuple[str, str, str]:
    return (
        _share(int(cost.macs), dense.macs),
        _share(int(cost.flops), dense.flops),
        _share(int(cost.params), dense.params),
    )


def _amount_text(cost: str, value: float | None, span: CostRange) -> str:
    return "any" if value is None else f"{COSTS[cost].unit.write(value)} ({value / span.dense:.1%})"


def _share(number: float | None, whole: Counts) -> str:
    if number is None:
        return "any"
    return f"{amount(number)} ({number / int(whole):.1%})"
