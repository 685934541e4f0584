"""What can be known before any training: groups and what they carry, reachable budgets, memory.

inspection = inspect(load_config("run.toml"))
inspection.dense_cost.macs, inspection.smallest.macs, inspection.memory_bytes
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autoprune.config.settings import RunConfig
from autoprune.cost import budget_keys
from autoprune.errors import BudgetError, PlanError
from autoprune.graph import Cost, Prunable
from autoprune.latency.table import LatencyPredictor
from autoprune.run._budget_amounts import check_amounts, resolve_budget
from autoprune.run._checks import check_search
from autoprune.run._dense import Dense, load_dense
from autoprune.run._events import Watcher, silent
from autoprune.run._latency import find_table, settle_divisor
from autoprune.run._memory_estimate import estimate_memory
from autoprune.run._paths import settle
from autoprune.run._problem import (
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
from autoprune.run._spec import RunSpec
from autoprune.space import Budget, SearchSpace
from autoprune.support.usercode import entry


@dataclass(frozen=True)
class GroupRow:
    """One channel group and the MACs and parameters of the dense layers that it touches."""

    name: str
    width: int
    layers: tuple[str, ...]
    macs: int
    params: int
    frozen: str | None
    crosses: str | None
    relaxed_step: int | None


@dataclass(frozen=True)
class CostRange:
    """One cost of the smallest and the largest plan of a search space, and of the dense model."""

    smallest: float
    largest: float
    dense: float


@dataclass(frozen=True)
class Inspection:
    """What `inspect` found.

    Attributes:
        model: the model's name.
        groups: in the order of the traced model.
        variables: how many keep ratios a search proposes.
        dense_cost: of the whole model.
        smallest: of the smallest plan of the search space.
        largest: of its largest plan.
        costs: by name, what is limited or minimised; without the latency where other limits cannot be met,
            since it is not measured then.
        budget: the limits asked for, in absolute numbers; None where the config names none that can be met.
        plans: how many distinct plans a search can try, if they are few enough to be counted.
        few_plans: a note that these are fewer than the trials of a search, else "".
        in_window: whether some plan fills the budget to [0.98, 1.00].
        problem: why the budget cannot be met, else "".
        memory_bytes: an estimate of what the search will need at its peak, all workers together.
    """

    model: str
    groups: tuple[GroupRow, ...]
    variables: int
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


@entry()
def inspect(config: RunConfig, *, watch: Watcher = silent) -> Inspection:
    """Trace a config's model and tell what a search would meet; no checkpoint is read.

    Nothing is written but latencies, where they had to be measured: the search that follows takes them.

    Args:
        config: of the run.
        watch: told what is measured, where search.divisor is "auto" or latency is limited.

    Raises:
        AutopruneError: the model, the data or the search space cannot be had.
    """
    spec = settle(config)
    check_search(spec)
    check_amounts(spec.budget, required=not spec.objectives)
    _ = spec.rungs
    dense = load_dense(spec, trained=False)
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
        budget = resolve_budget(spec.budget, dense_costs, spec.objectives, spec.runtime)
        space = build_problem_from_costs(prunable, spec, measures).space
        in_window, few = space.reach().in_window, few_plans(space, spec.search.trials)
        plans = None if space.plans is None else len(space.plans)
    except BudgetError as error:
        problem = str(error)
    reach = whole.reach()
    return Inspection(
        model=_name(spec),
        groups=_rows(prunable, whole.relaxed),
        variables=len(whole.variables),
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
    )


def _predict_latency(prunable: Prunable, spec: RunSpec, watch: Watcher) -> LatencyPredictor | None:
    """Return what predicts the latency, if that counts; whatever is wrong besides is refused before.

    Raises:
        BudgetError: another limit cannot be met.
    """
    if not spec.limits_latency:
        return None
    check_unmeasured_limits(prunable, spec)
    return LatencyPredictor(find_table(prunable, spec, watch))


def _unsearchable(prunable: Prunable, dense: Dense, spec: RunSpec, problem: str) -> Inspection:
    """Return what is found of a model of which nothing may be narrowed; why stands in its groups."""
    cost = prunable.cost()
    return Inspection(
        model=_name(spec),
        groups=_rows(prunable, {}),
        variables=0,
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
    )


def _name(spec: RunSpec) -> str:
    return spec.model.name or spec.model.factory or ""


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


def _ranges(
    prunable: Prunable, space: SearchSpace, measures: Mapping[str, CostMeasure], spec: RunSpec
) -> dict[str, CostRange]:
    """Return the range of each cost that is limited or minimised and can be told."""
    limited = [key.cost for key in budget_keys().values() if getattr(spec.budget, key.name) is not None]
    ends = np.array([[each.low for each in space.variables], [each.high for each in space.variables]])
    cost = expected_cost(prunable, measures)(space.snap(ends)).known()
    dense = dense_cost_of(prunable, measures).known()
    names = dict.fromkeys([*spec.objectives, *limited])
    return {
        name: CostRange(float(smallest), float(largest), float(dense[name]))
        for name in names
        if name in cost
        for smallest, largest in [np.asarray(cost[name])]
    }
