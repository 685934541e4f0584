"""What can be known before any training: groups and what they carry, reachable budgets, memory.

Before: a config; after: the user, who chooses a budget, a divisor, what to freeze.

    inspection = inspect(load_config("run.toml"))
    inspection.dense_cost.macs, inspection.smallest.macs, inspection.memory_bytes
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.config.settings import RunConfig
from autoprune.cost import budget_keys
from autoprune.data import DeviceLoader, first_batch
from autoprune.engines import find_engine
from autoprune.errors import BudgetError, PlanError
from autoprune.graph import Cost, Prunable
from autoprune.run._budget_amounts import check_amounts, resolve_budget
from autoprune.run._checks import check_search
from autoprune.run._choices import reads
from autoprune.run._dense import Dense, load_dense
from autoprune.run._events import Watcher, silent
from autoprune.run._latency import LatencyTables, settle_divisor
from autoprune.run._moments import moments_bytes
from autoprune.run._objectives import objective_costs
from autoprune.run._paths import settle
from autoprune.run._problem import (
    CostMeasure,
    dense_cost_of,
    expected_cost,
    few_plans,
    find_measures,
    footprint_of,
    pose_priced,
    runtime_of,
    space_spec,
    trace_dense,
)
from autoprune.run._scoring import parse_rungs
from autoprune.space import Budget, SearchSpace, build_space
from autoprune.support.usercode import entry, forward

_PARAMETER_COPIES = 5
"""Dense model, candidate, gradients, momentum, and the candidate's weights as they are handed on."""


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
    config = settle(config)
    check_search(config)
    check_amounts(config.budget, required=not objective_costs(config.search))
    parse_rungs(config.score)
    dense = load_dense(config, trained=False)
    config, _ = settle_divisor(config, dense, watch)
    prunable = trace_dense(dense, config)
    dense_cost = prunable.cost()
    spec = space_spec(config)
    try:
        whole = build_space(prunable.groups, prunable.cost, Budget(macs=int(dense_cost.macs)), spec)
    except PlanError as error:
        return _unsearchable(prunable, dense, config, str(error))
    budget, in_window, problem, plans, few = None, False, "", None, ""
    measures = footprint_of(prunable)
    try:
        measures = find_measures(prunable, config, LatencyTables(config, watch))
        objectives = objective_costs(config.search)
        dense_costs = dense_cost_of(prunable, measures)
        budget = resolve_budget(config.budget, dense_costs, objectives, runtime_of(config.latency))
        space = pose_priced(prunable, config, measures).space
        in_window, few = space.reach().in_window, few_plans(space, config.search.trials)
        plans = None if space.plans is None else len(space.plans)
    except BudgetError as error:
        problem = str(error)
    reach = whole.reach()
    return Inspection(
        model=_name(config),
        groups=_rows(prunable, whole.relaxed),
        variables=len(whole.variables),
        dense_cost=dense_cost,
        smallest=reach.smallest.one(),
        largest=reach.largest.one(),
        costs=_ranges(prunable, whole, measures, config),
        budget=budget,
        plans=plans,
        few_plans=few,
        in_window=in_window,
        problem=problem,
        memory_bytes=_memory(dense, config),
    )


def _unsearchable(prunable: Prunable, dense: Dense, config: RunConfig, problem: str) -> Inspection:
    """Return what is found of a model of which nothing may be narrowed; why stands in its groups."""
    cost = prunable.cost()
    return Inspection(
        model=_name(config),
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
        memory_bytes=_memory(dense, config),
    )


def _name(config: RunConfig) -> str:
    return config.model.name or config.model.factory or ""


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
    prunable: Prunable, space: SearchSpace, measures: Mapping[str, CostMeasure], config: RunConfig
) -> dict[str, CostRange]:
    """Return the range of each cost that is limited or minimised and can be told."""
    limited = [key.cost for key in budget_keys().values() if getattr(config.budget, key.name) is not None]
    ends = np.array([[each.low for each in space.variables], [each.high for each in space.variables]])
    cost = expected_cost(prunable, measures)(space.snap(ends)).known()
    dense = dense_cost_of(prunable, measures).known()
    names = dict.fromkeys([*objective_costs(config.search), *limited])
    return {
        name: CostRange(float(smallest), float(largest), float(dense[name]))
        for name in names
        if name in cost
        for smallest, largest in [np.asarray(cost[name])]
    }


def _memory(dense: Dense, config: RunConfig) -> int:
    """Estimate the bytes of data, weights, moments and what a training step keeps for its backward pass."""
    weights = sum(leaf.numel() * leaf.element_size() for leaf in dense.model.state_dict().values())
    parts = (dense.data.train, dense.data.val, dense.data.test)
    # What streams is read a batch at a time; whether a user's own data set lies in memory, it does not say.
    samples = sum(part.samples for part in parts if isinstance(part, DeviceLoader))
    images = samples * dense.example_inputs.numel()
    inputs, _ = first_batch(dense.data.train)  # a loader of the user's own has a batch size of its own
    step = len(inputs) * _activation_bytes(dense.model, dense.example_inputs)
    workers = config.search.workers if find_engine(config.search.engine).parallel else 1
    moments = moments_bytes(dense.model) if reads(config, "score.moment_images") else 0
    total: int = workers * (images + _PARAMETER_COPIES * weights + step + moments)
    return total


def _activation_bytes(model: nn.Module, example: Tensor) -> int:
    """Count the bytes a sample that a forward pass keeps for the backward pass, parameters left out."""
    trained = copy.deepcopy(model).train()
    own = {leaf.untyped_storage().data_ptr() for leaf in trained.state_dict(keep_vars=True).values()}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = torch.zeros(2, *example.shape[1:])
    hooks = torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor)
    with torch.random.fork_rng(), hooks:
        outputs = forward(trained, batch)
    del outputs
    return sum(kept.values()) // 2
