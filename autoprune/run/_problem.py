"""The problem that a search solves: the traced dense model, the budget in absolute numbers, the search space.

Before: the dense model; after: importance, study and engine.

    problem = pose(load_dense(config), config)
    problem.space.variables, problem.dense_cost.macs, problem.budget
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from autoprune.config.settings import BudgetSettings, LatencySettings, RunConfig
from autoprune.cost import COSTS, LATENCY
from autoprune.errors import ConfigError, suggest
from autoprune.graph import Cost, Prunable
from autoprune.latency import LatencySetting
from autoprune.run._budget_amounts import resolve_budget
from autoprune.run._dense import Dense
from autoprune.run._objectives import objective_costs
from autoprune.space import Budget, CostFunction, SearchSpace, ShareSpace, SpaceSpec, build_space, load_spec
from autoprune.study import SCORE
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.tracing import trace

SHORT_OF_WINDOW = "No plan fills the budget to 98%: the search takes the nearest below."
"""Said by `inspect` and at the start of a search whose divisor, ratios and ties leave the window empty."""


MEASURED: Final = "auto"
"""The search.divisor that is measured."""


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


FindLatency = Callable[[Prunable], PredictLatency]
"""Measures, or reads, what predicts the latency of a traced model's candidates."""


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


def pose(dense: Dense, config: RunConfig, find_latency: FindLatency | None = None) -> Problem:
    """Trace the dense model, resolve the budget against its cost and build the search space.

    Args:
        dense: model and data.
        config: its [budget] and [search] say what is asked.
        find_latency: called where the config limits or minimises the latency.

    Raises:
        TraceError: the model cannot be traced.
        ConfigError: a budget or a search space that cannot be used as written.
        BudgetError: no plan meets the budget; the smallest reachable cost is named.
    """
    return pose_traced(trace_dense(dense, config), config, find_latency)


def pose_traced(prunable: Prunable, config: RunConfig, find_latency: FindLatency | None = None) -> Problem:
    """Pose the problem of a model that is traced already; see `pose`."""
    return pose_priced(prunable, config, find_measures(prunable, config, find_latency))


def pose_priced(prunable: Prunable, config: RunConfig, measures: Mapping[str, CostMeasure]) -> Problem:
    """Pose the problem of a model whose candidates' costs are known; see `pose`."""
    dense_cost = dense_cost_of(prunable, measures)
    objectives = objective_costs(config.search)
    budget = resolve_budget(config.budget, dense_cost, objectives, runtime_of(config.latency))
    limited = {name: measure for name, measure in measures.items() if name in budget.limits}
    space = build_space(prunable.groups, _with_measures(prunable.cost, limited), budget, space_spec(config))
    if objectives:
        space = ShareSpace(space, objectives)
    return Problem(prunable, dense_cost, budget, space, expected_cost(prunable, measures))


def find_measures(
    prunable: Prunable, config: RunConfig, find_latency: FindLatency | None = None
) -> dict[str, CostMeasure]:
    """Return what tells candidates' costs beyond MACs and parameters, by the name of the cost.

    Raises:
        ConfigError, BudgetError: what is asked besides latency cannot be met: measuring that takes minutes.
    """
    measures = footprint_of(prunable)
    if asks_for_latency(config) and find_latency is not None:
        require_unmeasured(prunable, config)
        measures[LATENCY] = find_latency(prunable)
    return measures


def require_unmeasured(prunable: Prunable, config: RunConfig) -> None:
    """Refuse what is wrong with the space and with the limits on anything but the latency.

    A divisor that is measured is left open here: it counts once it is known.

    Raises:
        ConfigError: the space cannot be built as written, e.g. a pattern in it matches no group.
        BudgetError: one of those limits is not below what the dense model has, or no plan meets it.
    """
    divisor = None if measures_divisor(config) else config.search.divisor
    search = dataclasses.replace(config.search, objectives=(SCORE,), divisor=divisor)
    budget = dataclasses.replace(config.budget, **{"latency": None})
    config = dataclasses.replace(config, budget=budget, search=search)
    if budget != BudgetSettings():
        pose_priced(prunable, config, footprint_of(prunable))
    else:
        whole = Budget(macs=int(prunable.cost().macs))
        build_space(prunable.groups, prunable.cost, whole, space_spec(config))


def footprint_of(prunable: Prunable) -> dict[str, CostMeasure]:
    """Return the functions that compute the further costs of candidates, by the name of the cost."""
    return {name: spec.measure(prunable) for name, spec in COSTS.items() if spec.measure is not None}


def expected_cost(prunable: Prunable, measures: Mapping[str, CostMeasure]) -> CostFunction:
    """Return all that is known of what candidates cost, their latency as it is expected."""
    recorded = {name: getattr(measure, "expected", measure) for name, measure in measures.items()}
    return _with_measures(prunable.cost, recorded)


def runtime_of(settings: LatencySettings) -> LatencySetting:
    """Return the setting that [latency] asks for, whether it can be used here or not.

    Raises:
        ConfigError: a value that no probe could use.
    """
    names = [field.name for field in dataclasses.fields(LatencySetting)]
    return LatencySetting(**{name: getattr(settings, name) for name in names})


def dense_cost_of(prunable: Prunable, measures: Mapping[str, CostMeasure]) -> Cost:
    """Return all that is known of the dense model's cost."""
    full = np.array([[group.width for group in prunable.groups]], dtype=np.int64)
    cost = _with_measures(prunable.cost, measures)(full).one()
    measured = getattr(measures.get(LATENCY), "dense_ms", None)  # not predicted, it was timed
    return cost if measured is None else cost.plus(latency_ms=measured)


def asks_for_latency(config: RunConfig) -> bool:
    """Tell whether a config limits or minimises the latency."""
    return config.budget.latency is not None or LATENCY in objective_costs(config.search)


def measures_divisor(config: RunConfig) -> bool:
    """Tell whether the divisor is to be measured: "auto", or left open where latency counts.

    At widths off a runtime's steps candidates take longer than the space can tell when it fills a budget.

    Raises:
        ConfigError: the file of the search space cannot be used.
    """
    search = config.search
    if search.divisor is not None or not asks_for_latency(config):
        return search.divisor == MEASURED
    return search.space is None or load_spec(search.space).divisor is None


def _with_measures(cost: CostFunction, measures: Mapping[str, CostMeasure]) -> CostFunction:
    """Return the cost with what else is measured of candidates."""
    if not measures:
        return cost

    def joined(widths: IntArray) -> Cost:
        measured: dict[str, Any] = {name: measure(widths) for name, measure in measures.items()}
        return cost(widths).plus(**measured)

    return joined


def trace_dense(dense: Dense, config: RunConfig) -> Prunable:
    """Trace the dense model, with the modules frozen that the config names.

    Raises:
        ConfigError: model.frozen names no module.
        TraceError: the model cannot be traced.
    """
    modules = [name for name, _ in dense.model.named_modules() if name]
    for name in config.model.frozen:
        if name not in modules:
            kind = type(dense.model).__name__
            raise ConfigError(f'model.frozen: "{name}" is no module of {kind}.{suggest(name, modules)}')
    return trace(dense.model, dense.example_inputs, frozen=config.model.frozen)


def space_spec(config: RunConfig) -> SpaceSpec:
    """Read the search space's file, where one is named, and put the config's own keys on top.

    Raises:
        ConfigError: the file cannot be used, or search.divisor is "auto" still: it has to be measured before.
    """
    search = config.search
    if search.divisor == MEASURED:
        raise ConfigError(f'search.divisor: "{MEASURED}" has not been measured; give a number such as 8.')
    spec = load_spec(search.space) if search.space is not None else SpaceSpec()
    return dataclasses.replace(
        spec,
        low=spec.low if search.low is None else search.low,
        high=spec.high if search.high is None else search.high,
        divisor=spec.divisor or 1 if search.divisor is None else search.divisor,
    )
