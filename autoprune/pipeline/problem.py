"""The problem that a search solves: the traced dense model, the budget in absolute numbers, the search space.

Before: the dense model; after: importance, study and engine.

    problem = pose(load_dense(config), config)
    problem.space.variables, problem.dense_cost.macs, problem.budget
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoprune.errors import ConfigError, suggest
from autoprune.graph import Cost, Prunable
from autoprune.pipeline.amounts import resolve_budget
from autoprune.pipeline.dense import Dense
from autoprune.settings import RunConfig
from autoprune.space import Budget, SearchSpace, SpaceSpec, build_space, load_spec
from autoprune.space.ladder import CostFunction
from autoprune.space.levels import FloatArray, IntArray
from autoprune.tracing import trace

SHORT_OF_WINDOW = "No plan fills the budget to 98%: the search takes the nearest below."
"""Said by `inspect` and at the start of a search whose divisor, ratios and ties leave the window empty."""


PredictLatency = Callable[[IntArray], FloatArray]
"""From widths int64 [n, groups] to milliseconds float64 [n]; it never falls where a width grows."""

FindLatency = Callable[[Prunable], PredictLatency]
"""Measures, or reads, what predicts the latency of a traced model's candidates."""


@dataclass(frozen=True)
class Problem:
    """A traced model under a budget."""

    prunable: Prunable
    dense_cost: Cost
    budget: Budget
    space: SearchSpace


def pose(dense: Dense, config: RunConfig, find_latency: FindLatency | None = None) -> Problem:
    """Trace the dense model, resolve the budget against its cost and build the search space.

    Args:
        dense: model and data.
        config: its [budget] and [search] say what is asked.
        find_latency: called where the config limits the latency.

    Raises:
        TraceError: the model cannot be traced.
        ConfigError: a budget or a search space that cannot be used as written.
        BudgetError: no plan meets the budget; the smallest reachable cost is named.
    """
    prunable = trace_dense(dense, config)
    cost: CostFunction = prunable.cost
    dense_cost = prunable.cost()
    if config.budget.latency is not None and find_latency is not None:
        predict = find_latency(prunable)
        full = np.array([[group.width for group in prunable.groups]], dtype=np.int64)
        dense_cost = dataclasses.replace(dense_cost, latency_ms=float(predict(full)[0]))
        cost = _with_latency(prunable.cost, predict)
    budget = resolve_budget(config.budget, dense_cost)
    space = build_space(prunable.groups, cost, budget, space_spec(config))
    return Problem(prunable, dense_cost, budget, space)


def _with_latency(cost: CostFunction, predict: PredictLatency) -> CostFunction:
    return lambda widths: dataclasses.replace(cost(widths), latency_ms=predict(widths))


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
    if search.divisor == "auto":
        raise ConfigError('search.divisor: "auto" has not been measured; give a number such as 8.')
    spec = load_spec(search.space) if search.space is not None else SpaceSpec()
    return dataclasses.replace(
        spec,
        low=spec.low if search.low is None else search.low,
        high=spec.high if search.high is None else search.high,
        divisor=spec.divisor if search.divisor is None else search.divisor,
    )
