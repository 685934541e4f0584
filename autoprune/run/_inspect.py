"""Inspects a model before any training: its channel groups with their costs, reachable budgets, and memory.

Example:
    inspection = inspect(load_config("run.toml"))
    inspection.dense_cost.macs, inspection.smallest.macs, inspection.memory_bytes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from rich.table import Table
from torch import nn

from autoprune.cost import budget_keys
from autoprune.data import UserLoaders, VisionData
from autoprune.errors import BudgetError, PlanError
from autoprune.graph import Cost, Prunable
from autoprune.latency.table import LatencyPredictor
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.run._checks.checks import check_search
from autoprune.run._checks.memory_estimate import estimate_memory
from autoprune.run._resolving.budget_amounts import check_amounts, resolve_budget
from autoprune.run._resolving.dense import GIVEN_MODEL, Dense, given_dense, load_dense
from autoprune.run._resolving.latency import find_table, settle_divisor
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.problem import (
    CostMeasure,
    build_problem_from_costs,
    build_unlimited_problem,
    check_unmeasured_limits,
    dense_cost_of,
    expected_cost,
    few_plans,
    measures_of,
    trace_dense,
)
from autoprune.run._resolving.spec import ConfigSource, RunSpec
from autoprune.run._results.tables import block_table, group_table, inspection_table
from autoprune.space import Budget, SearchSpace
from autoprune.support.events import Watcher
from autoprune.support.notebook import Shown
from autoprune.support.usercode import entry


@dataclass(frozen=True)
class GroupRow:
    """A channel group, with the MACs and parameters of the dense layers that it touches."""

    name: str
    width: int
    layers: tuple[str, ...]
    macs: int
    params: int
    frozen: str | None
    crosses: str | None
    relaxed_step: int | None


@dataclass(frozen=True)
class BlockRow:
    """A droppable block, with the channel groups inside it and the MACs and parameters of its branch."""

    name: str
    groups: tuple[str, ...]
    macs: int
    params: int


@dataclass(frozen=True)
class CostRange:
    """One cost of the smallest and the largest plan of a search space, and of the dense model."""

    smallest: float
    largest: float
    dense: float


@dataclass(frozen=True, repr=False)
class Inspection(Shown):
    """The result of `inspect`.

    Attributes:
        model: name of the model.
        groups: the channel groups, in the order of the traced model.
        blocks: the residual branches that a search may drop.
        variables: number of keep ratios that a search proposes.
        drops_blocks: whether the search may drop blocks too.
        dense_cost: cost of the dense model.
        smallest: cost of the smallest plan of the search space.
        largest: cost of the largest plan of the search space.
        costs: the ranges of all limited or minimised costs, by name. If other limits cannot be met, latency
            is not measured, and its range is missing.
        budget: the limits in absolute numbers, or None if they cannot be met.
        plans: number of distinct plans within the budget, or None if there are too many to count.
        few_plans: a note if a search has more trials than distinct plans, else "".
        in_window: whether some plan fills the budget to [0.98, 1.00].
        problem: why the budget cannot be met, else "".
        memory_bytes: estimated peak memory of the search, of all workers together.
        outside_params: parameters outside of model.target, which stay and do not count.
    """

    model: str
    groups: tuple[GroupRow, ...]
    blocks: tuple[BlockRow, ...]
    variables: int
    drops_blocks: bool
    dense_cost: Cost
    smallest: Cost
    largest: Cost
    costs: Mapping[str, CostRange]
    budget: Budget | None
    plans: int | None
    few_plans: str
    in_window: bool
    problem: str
    memory_bytes: int
    outside_params: int = 0

    def _headline(self) -> str:
        dense, smallest = int(self.dense_cost.macs), int(self.smallest.macs)
        return (
            f"{self.model}, {len(self.groups)} channel groups, {dense:,} MACs, at least "
            f"{smallest / dense:.1%} of them reachable. {self.problem}"
        ).rstrip()

    def _tables(self) -> list[Table]:
        blocks = [block_table(self)] if self.blocks else []
        return [inspection_table(self), group_table(self), *blocks]


@entry(model=GIVEN_MODEL, watch=GIVEN_WATCH)
def inspect(
    config: ConfigSource,
    *,
    model: nn.Module | None = None,
    data: VisionData | UserLoaders | None = None,
    watch: Watch = True,
) -> Inspection:
    """Trace the model of a config, and report its channel groups, reachable budgets and memory.

    No checkpoint is read. Only a latency table is written, if latency counts. The search will reuse it.

    Args:
        config: a RunConfig, a mapping of sections, the path of a TOML file, or an embedded config's name.
        model: a model of your own in place of the one that the config names. It needs no training.
        data: its data, as `search` accepts them.
        watch: called with events while the divisor or latencies are measured. True shows them if there is a
            terminal or a notebook, and None or False shows nothing.

    Returns:
        The channel groups with their costs, and the reachable budgets.

    Raises:
        AutopruneError: the model, the data or the search space cannot be used.

    Example:
        inspection = autoprune.inspect("digits")
        inspection.smallest.macs / inspection.dense_cost.macs  # the smallest reachable share
    """
    spec = RunSpec.of(config)
    given = given_dense(model, data, spec)
    spec = settle(spec if given is None else spec.without_names(), named=given is None)
    with watching(watch) as show:
        return _inspect(given, spec, show)


def _inspect(given: Dense | None, spec: RunSpec, watch: Watcher) -> Inspection:
    """Inspect a model that a caller has passed, or the one that the settled config names."""
    check_search(spec)
    check_amounts(spec.budget, required=not spec.moved_costs)
    _ = spec.rungs
    dense = given or load_dense(spec, trained=False)
    prunable = trace_dense(dense, spec)
    spec, _ = settle_divisor(spec, prunable, watch)
    try:
        whole = build_unlimited_problem(prunable, spec).space
    except PlanError as error:
        return _unsearchable(prunable, dense, spec, str(error))
    budget, in_window, problem, plans, few = None, False, "", None, ""
    measures = measures_of(prunable)
    try:
        measures = measures_of(prunable, _predict_latency(prunable, spec, watch))
        dense_costs = dense_cost_of(prunable, measures)
        budget = resolve_budget(spec.budget, dense_costs, spec.moved_costs, spec.runtime)
        space = build_problem_from_costs(prunable, spec, measures).space
        in_window, few = space.reach().in_window, few_plans(space, spec.search.trials)
        plans = None if space.plans is None else len(space.plans)
    except BudgetError as error:
        problem = str(error)
    reach = whole.reach()
    return Inspection(
        model=_name(dense, spec),
        groups=_rows(prunable, whole.relaxed),
        blocks=_block_rows(prunable),
        variables=len(whole.keep_ratios.variables),
        drops_blocks=bool(whole.blocks),
        dense_cost=prunable.cost(),
        smallest=reach.smallest.one(),
        largest=reach.largest.one(),
        costs=_ranges(prunable, whole, measures, spec),
        budget=budget,
        plans=plans,
        few_plans=few,
        in_window=in_window,
        problem=problem,
        memory_bytes=estimate_memory(dense, spec),
        outside_params=_outside(prunable),
    )


def _predict_latency(prunable: Prunable, spec: RunSpec, watch: Watcher) -> LatencyPredictor | None:
    """Return the predictor of latency, or None if latency is neither limited nor minimised.

    Raises:
        BudgetError: another limit cannot be met. It is checked before latency is measured.
    """
    if not spec.limits_latency:
        return None
    check_unmeasured_limits(prunable, spec)
    return LatencyPredictor(find_table(prunable, spec, watch), prunable.blocks)


def _unsearchable(prunable: Prunable, dense: Dense, spec: RunSpec, problem: str) -> Inspection:
    """Return the inspection of a model without searchable groups. Each group names its reason."""
    cost = prunable.cost()
    return Inspection(
        model=_name(dense, spec),
        groups=_rows(prunable, {}),
        blocks=_block_rows(prunable),
        variables=0,
        drops_blocks=False,
        dense_cost=cost,
        smallest=cost,
        largest=cost,
        costs={},
        budget=None,
        plans=None,
        few_plans="",
        in_window=False,
        problem=problem,
        memory_bytes=estimate_memory(dense, spec),
        outside_params=_outside(prunable),
    )


def _outside(prunable: Prunable) -> int:
    """Return the number of parameters outside of the part that was traced."""
    inside = {id(each) for each in prunable.part.parameters()}
    return sum(each.numel() for each in prunable.model.parameters() if id(each) not in inside)


def _name(dense: Dense, spec: RunSpec) -> str:
    return spec.model.name or spec.model.factory or type(dense.model).__name__


def _rows(prunable: Prunable, relaxed: Mapping[str, int]) -> tuple[GroupRow, ...]:
    return tuple(
        GroupRow(
            group.name,
            group.width,
            group.layers,
            *prunable.formula.carried(position),
            group.frozen,
            group.crosses,
            relaxed.get(group.name),
        )
        for position, group in enumerate(prunable.groups)
    )


def _block_rows(prunable: Prunable) -> tuple[BlockRow, ...]:
    first = len(prunable.groups)
    return tuple(
        BlockRow(block.name, block.groups, *prunable.formula.carried(first + place))
        for place, block in enumerate(prunable.blocks)
    )


def _ranges(
    prunable: Prunable, space: SearchSpace, measures: Mapping[str, CostMeasure], spec: RunSpec
) -> dict[str, CostRange]:
    """Return the range of each limited or minimised cost that is known."""
    limited = [key.cost for key in budget_keys().values() if getattr(spec.budget, key.name) is not None]
    ends = np.array([[each.low for each in space.variables], [each.high for each in space.variables]])
    cost = expected_cost(prunable, measures)(space.snap(ends)).known()
    dense = dense_cost_of(prunable, measures).known()
    names = dict.fromkeys([*spec.moved_costs, *limited])
    return {
        name: CostRange(float(smallest), float(largest), float(dense[name]))
        for name in names
        if name in cost
        for smallest, largest in [np.asarray(cost[name])]
    }
