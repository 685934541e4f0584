"""The problem that a search solves: the traced dense model, the budget in absolute numbers, the search space.

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
from autoprune.run._budget_amounts import resolve_budget
from autoprune.run._dense import Dense
from autoprune.run._spec import RunSpec
from autoprune.space import Budget, CostFunction, SearchSpace, ShareSpace, build_space
from autoprune.study import SCORE
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.tracing import trace

SHORT_OF_WINDOW = "No plan fills the budget to 98%: the search takes the nearest below."
"""Said by `inspect` and at the start of a search whose divisor, ratios and ties leave the window empty."""


class PredictLatency(Protocol):
    """Tells the latency of candidates.

    On a runtime with stairs the two answers differ off the steps, where the first one is too low: the space
    needs it, since it fills budgets by a cost that never falls; what a candidate takes is the second.
    """

    dense_ms: float

    def __call__(self, widths: IntArray) -> FloatArray:
        """Return milliseconds [n] of widths [n, groups]; they never fall where a width grows."""

    def expected(self, widths: IntArray) -> FloatArray:
        """Return the expected milliseconds [n] of widths [n, groups]."""


CostMeasure = Callable[[IntArray], IntArray | FloatArray]
"""From widths int64 [n, groups] to one cost [n]."""


@dataclass(frozen=True)
class Problem:
    """A traced model under a budget.

    Attributes:
        prunable: the traced model.
        dense_cost: all that is known of the dense model's cost.
        budget: the limits; with several objectives, on each of the costs among them, too.
        space: what samplers propose in; with several objectives, the share of these limits as well.
        cost: all that is known of what candidates cost, for their records: the expected latency, where the
            space fills the budget by the lowest that never falls as widths grow.
    """

    prunable: Prunable
    dense_cost: Cost
    budget: Budget
    space: SearchSpace
    cost: CostFunction


def few_plans(space: SearchSpace, trials: int) -> str:
    """Return a note that a search has more trials than there are plans to try, or ""."""
    if space.plans is None or len(space.plans) >= trials:
        return ""
    count = len(space.plans)
    plans = "1 distinct plan meets" if count == 1 else f"{count} distinct plans meet"
    return (
        f"{plans} the budget, and search.trials is {trials}: the search ends when "
        f"{'it is' if count == 1 else 'all of them are'} tried; "
        "a lower search.divisor or search.low may give more plans"
    )


def build_problem(prunable: Prunable, spec: RunSpec, predict: PredictLatency | None = None) -> Problem:
    """Resolve the budget against the dense model's cost and build the search space.

    Args:
        prunable: the traced model.
        spec: its [budget] and [search] say what is requested.
        predict: predicts the latency of candidates, if that is limited or minimised.

    Raises:
        ConfigError: a budget or a search space that cannot be used as written.
        BudgetError: no plan meets the budget; the smallest reachable cost is named.
    """
    return build_problem_from_costs(prunable, spec, measures_of(prunable, predict))


def build_problem_from_costs(
    prunable: Prunable, spec: RunSpec, measures: Mapping[str, CostMeasure]
) -> Problem:
    """Pose the problem of a model whose candidates' costs are known; see `build_problem`."""
    dense_cost = dense_cost_of(prunable, measures)
    budget = resolve_budget(spec.budget, dense_cost, spec.objectives, spec.runtime)
    limited = {name: measure for name, measure in measures.items() if name in budget.limits}
    space = build_space(prunable.groups, _with_measures(prunable.cost, limited), budget, spec.space)
    if spec.objectives:
        space = ShareSpace(space, spec.objectives)
    return Problem(prunable, dense_cost, budget, space, expected_cost(prunable, measures))


def build_unlimited_problem(prunable: Prunable, spec: RunSpec) -> Problem:
    """Pose the problem of a model that may keep all of its MACs."""
    dense_cost = prunable.cost()
    whole = Budget(macs=int(dense_cost.macs))
    space = build_space(prunable.groups, prunable.cost, whole, spec.space)
    return Problem(prunable, dense_cost, whole, space, prunable.cost)


def check_unmeasured_limits(prunable: Prunable, spec: RunSpec) -> None:
    """Refuse what is wrong with the space and with the limits on anything but the latency.

    A divisor that is measured is left open here: it counts once it is known.

    Raises:
        ConfigError: the space cannot be built as written, e.g. a pattern in it matches no group.
        BudgetError: one of those limits is not below what the dense model has, or no plan meets it.
    """
    others = dataclasses.replace(spec.budget, **{"latency": None})
    spec = dataclasses.replace(spec.with_search(objectives=(SCORE,)), budget=others)
    if others == BudgetSettings():
        build_unlimited_problem(prunable, spec)
    else:
        build_problem(prunable, spec)


def measures_of(prunable: Prunable, predict: PredictLatency | None = None) -> dict[str, CostMeasure]:
    """Return the functions that compute the further costs of candidates, by the name of the cost."""
    measures = {name: cost.measure(prunable) for name, cost in COSTS.items() if cost.measure is not None}
    return measures if predict is None else {**measures, LATENCY: predict}


def expected_cost(prunable: Prunable, measures: Mapping[str, CostMeasure]) -> CostFunction:
    """Return all that is known of what candidates cost, their latency as it is expected."""
    recorded = {name: getattr(measure, "expected", measure) for name, measure in measures.items()}
    return _with_measures(prunable.cost, recorded)


def dense_cost_of(prunable: Prunable, measures: Mapping[str, CostMeasure]) -> Cost:
    """Return all that is known of the dense model's cost."""
    full = np.array([[group.width for group in prunable.groups]], dtype=np.int64)
    cost = _with_measures(prunable.cost, measures)(full).one()
    measured = getattr(measures.get(LATENCY), "dense_ms", None)  # not predicted, it was timed
    return cost if measured is None else cost.plus(latency_ms=measured)


def _with_measures(cost: CostFunction, measures: Mapping[str, CostMeasure]) -> CostFunction:
    """Return the cost with what else is measured of candidates."""
    if not measures:
        return cost

    def joined(widths: IntArray) -> Cost:
        measured: dict[str, Any] = {name: measure(widths) for name, measure in measures.items()}
        return cost(widths).plus(**measured)

    return joined


def trace_dense(dense: Dense, spec: RunSpec) -> Prunable:
    """Trace the dense model, with the modules frozen that the config names.

    Raises:
        ConfigError: model.frozen names no module.
        TraceError: the model cannot be traced.
    """
    modules = [name for name, _ in dense.model.named_modules() if name]
    for name in spec.model.frozen:
        if name not in modules:
            kind = type(dense.model).__name__
            raise ConfigError(f'model.frozen: "{name}" is no module of {kind}.{suggest(name, modules)}')
    return trace(dense.model, dense.example_inputs, frozen=spec.model.frozen)
