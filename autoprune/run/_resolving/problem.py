"""The problem that a search solves: the traced dense model, the budget in absolute numbers, the search space.

Example:
    problem = build_problem(trace_dense(dense, spec), spec)
    problem.space.variables, problem.dense_cost.macs, problem.budget
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from autoprune.config.settings import BudgetSettings
from autoprune.cost import COSTS, LATENCY
from autoprune.errors import ConfigError, suggest
from autoprune.graph import Cost, Prunable
from autoprune.run._resolving.budget_amounts import resolve_budget
from autoprune.run._resolving.dense import Dense
from autoprune.run._resolving.spec import RunSpec
from autoprune.space import (
    Budget,
    ChoiceSpace,
    CostFunction,
    SearchSpace,
    ShareSpace,
    build_depth_space,
    build_space,
)
from autoprune.study import SCORE
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.tracing import trace

SHORT_OF_WINDOW = "No plan fills the budget to 98%: the search takes the nearest below."
"""Printed if divisor, ratios and ties allow no plan at 98% to 100% of the budget."""


class PredictLatency(Protocol):
    """Predicts the latency of candidates.

    On some runtimes the latency is a step function of the width, and a width between two steps can be slower
    than a larger one. The space can only fill a budget by a cost that never falls as a width grows, so the
    call returns such a lower bound. `expected` returns the latency that a candidate really takes.
    """

    dense_ms: float

    def __call__(self, widths: IntArray) -> FloatArray:
        """Return the latency in ms [n] of widths [n, groups + blocks]. It never falls as a width grows."""

    def expected(self, widths: IntArray) -> FloatArray:
        """Return the expected latency in ms [n] of widths [n, groups + blocks]."""


CostMeasure = Callable[[IntArray], IntArray | FloatArray]
"""Maps widths int64 [n, groups] to one cost [n]."""


@dataclass(frozen=True)
class Problem:
    """A traced model under a budget.

    Attributes:
        prunable: the traced model.
        dense_cost: all known costs of the dense model.
        budget: the limits. With several objectives it limits each of the minimised costs as well, and with a
            tolerance the cost that is made small.
        space: the search space. In both cases it includes the share of the budget to fill.
        cost: computes all known costs of candidates for their records, with the expected latency. The space
            itself fills the budget by the lower bound that `PredictLatency` returns.
    """

    prunable: Prunable
    dense_cost: Cost
    budget: Budget
    space: SearchSpace
    cost: CostFunction


def few_plans(space: SearchSpace, trials: int) -> str:
    """Return a note if a search has more trials than distinct plans, else ""."""
    if space.plans is None or len(space.plans) >= trials:
        return ""
    count = len(space.plans)
    plans = "1 distinct plan meets" if count == 1 else f"{count} distinct plans meet"
    return (
        f"{plans} the budget, and search.trials is {trials}: the search ends when "
        f"{'it is' if count == 1 else 'all of them are'} tried. "
        "A lower search.divisor or search.low may give more plans"
    )


def build_problem(prunable: Prunable, spec: RunSpec, predict: PredictLatency | None = None) -> Problem:
    """Resolve the budget against the dense model's cost and build the search space.

    Args:
        prunable: the traced model.
        spec: the settings, of which [budget] and [search] are read.
        predict: predicts the latency of candidates. Needed if latency is limited or minimised.

    Raises:
        ConfigError: the budget or the search space cannot be used as written.
        BudgetError: no plan meets the budget. The message names the smallest reachable cost.
    """
    return build_problem_from_costs(prunable, spec, measures_of(prunable, predict))


def build_problem_from_costs(
    prunable: Prunable, spec: RunSpec, measures: Mapping[str, CostMeasure], budget: Budget | None = None
) -> Problem:
    """Build a problem as `build_problem` does, from functions that measure further costs.

    Args:
        prunable: the traced model.
        spec: the settings.
        measures: functions that compute costs other than MACs and parameters.
        budget: the limits, or None for those of [budget].
    """
    dense_cost = dense_cost_of(prunable, measures)
    if budget is None:
        budget = resolve_budget(spec.budget, dense_cost, spec.moved_costs, spec.runtime)
    limited = {name: measure for name, measure in measures.items() if name in budget.limits}
    space = _build_space(prunable, with_measures(prunable.cost, limited), budget, spec)
    if spec.moved_costs:
        space = ShareSpace(space, spec.moved_costs)
    if len(spec.search.criteria) > 1:
        space = ChoiceSpace(space, spec.search.criteria)
    return Problem(prunable, dense_cost, budget, space, expected_cost(prunable, measures))


def build_unlimited_problem(prunable: Prunable, spec: RunSpec) -> Problem:
    """Build the problem of a model that may keep all of its MACs."""
    dense_cost = prunable.cost()
    whole = Budget(macs=int(dense_cost.macs))
    space = _build_space(prunable, prunable.cost, whole, spec)
    return Problem(prunable, dense_cost, whole, space, prunable.cost)


def _build_space(prunable: Prunable, cost: CostFunction, budget: Budget, spec: RunSpec) -> SearchSpace:
    """Build the space of the keep ratios, and of the blocks if the depth is searched.

    Raises:
        ConfigError: the depth is searched, and the model has no block.
    """
    if not spec.search.depth:
        return build_space(prunable.groups, cost, budget, spec.space)
    if not prunable.blocks:
        kind = type(prunable.model).__name__
        raise ConfigError(f"search.depth: {kind} has no residual block that can be dropped. Leave it out.")
    return build_depth_space(prunable.groups, prunable.blocks, cost, budget, spec.space)


def check_unmeasured_limits(prunable: Prunable, spec: RunSpec) -> None:
    """Check the search space, and all limits that need no latency measurement.

    If the divisor is measured too, the check runs with divisor 1.

    Raises:
        ConfigError: the space cannot be built as written, e.g. a pattern in it matches no group.
        BudgetError: a limit is not below the dense model's cost, or no plan meets it.
    """
    others = dataclasses.replace(spec.budget, **{"latency": None, "tolerance": None, "of": None})
    spec = dataclasses.replace(spec.with_search(objectives=(SCORE,)), budget=others)
    if others == BudgetSettings():
        build_unlimited_problem(prunable, spec)
    else:
        build_problem(prunable, spec)


def measures_of(prunable: Prunable, predict: PredictLatency | None = None) -> dict[str, CostMeasure]:
    """Return the functions that compute costs other than MACs and parameters, by the name of the cost."""
    measures = {name: cost.measure(prunable) for name, cost in COSTS.items() if cost.measure is not None}
    return measures if predict is None else {**measures, LATENCY: predict}


def expected_cost(prunable: Prunable, measures: Mapping[str, CostMeasure]) -> CostFunction:
    """Return the function that computes all known costs of candidates, with their expected latency."""
    recorded = {name: getattr(measure, "expected", measure) for name, measure in measures.items()}
    return with_measures(prunable.cost, recorded)


def dense_cost_of(prunable: Prunable, measures: Mapping[str, CostMeasure]) -> Cost:
    """Return all known costs of the dense model."""
    full = np.array([[group.width for group in prunable.groups]], dtype=np.int64)
    cost = with_measures(prunable.cost, measures)(full).one()
    measured = getattr(measures.get(LATENCY), "dense_ms", None)  # timed, so better than a prediction
    return cost if measured is None else cost.plus(latency_ms=measured)


def with_measures(cost: CostFunction, measures: Mapping[str, CostMeasure]) -> CostFunction:
    """Return a cost function that adds the measured costs."""
    if not measures:
        return cost

    def joined(widths: IntArray) -> Cost:
        measured: dict[str, Any] = {name: measure(widths) for name, measure in measures.items()}
        return cost(widths).plus(**measured)

    return joined


def trace_dense(dense: Dense, spec: RunSpec) -> Prunable:
    """Trace the dense model with the modules of model.frozen frozen.

    Raises:
        ConfigError: a name in model.frozen is no module of the model.
        TraceError: the model cannot be traced.
    """
    modules = [name for name, _ in dense.model.named_modules() if name]
    for name in spec.model.frozen:
        if name not in modules:
            kind = type(dense.model).__name__
            raise ConfigError(f'model.frozen: "{name}" is no module of {kind}.{suggest(name, modules)}')
    given = dense.model, dense.example_inputs
    return trace(*given, frozen=spec.model.frozen, target=spec.model.target or "", watch=None)
