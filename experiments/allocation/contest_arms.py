"""The arms of the contest: ways to choose widths that fill the budget of a setup.

If the budget is a latency, candidates are timed in the runtime, and chosen again under another predicted
latency until one takes 98% to 100% of the budget. A search times its finalists itself.

Example:
    candidate = ARMS["uniform"]("pairs-params", 0)
    candidate.model, candidate.widths
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import nn

from autoprune.cost import LATENCY
from autoprune.criteria import plan_from_importance
from autoprune.errors import BudgetError
from autoprune.graph import Plan
from autoprune.latency.table import LatencyPredictor, narrowed
from autoprune.run._measuring.heuristics import DEPTH, WARM_STARTS, Proposer, find_warm_start
from autoprune.run._measuring.moments import moments_of
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._resolving.problem import build_problem
from autoprune.run._trials.cut_trial import plan_of_trial
from autoprune.score import cut_model
from autoprune.study import SearchStudy
from autoprune.support.arrays import IntArray
from autoprune.support.atomic import replacing
from experiments.allocation import kirigami
from experiments.allocation.contest_setups import (
    FEW,
    PAIRS,
    RUNS,
    SETUPS,
    context_of,
    latency_limit,
    load,
    spec_of,
)
from experiments.finetuning import searched
from experiments.search_efficiency import torch_pruning_plans

UNIFORM = "uniform"
SNAPPED = "uniform-snapped"
KIRIGAMI = "kirigami-greedy"
SEARCH = "search"
SEARCH_DEPTH = "search, depth"

FULL = 0.98
"""A candidate that takes this share of a latency budget fills it, as a plan does for a search."""

AIM = (FULL + 1) / 2

ATTEMPTS = 8
"""Candidates that are timed at most until one fills the budget."""

RATIOS = 500
"""Keep ratios from which that of uniform is chosen."""


@dataclass(frozen=True)
class Candidate:
    """A small model before its finetune.

    Attributes:
        model: the model.
        widths: of the searchable groups, in their order, or "" for models of other tools.
        search_s: seconds that the choice took, without a race.
        race_s: seconds of the race, after which the model of a search is trained, or None without one.
    """

    model: nn.Module
    widths: str
    search_s: float
    race_s: float | None = None


Arm = Callable[[str, int], Candidate]
"""From a setup and a seed to a candidate."""

Made = TypeVar("Made")


def of_plan(
    context: MeasurementContext, plan: Plan, search_s: float, race_s: float | None = None
) -> Candidate:
    """Cut the dense model by a plan, and refit the layers."""
    traced = context.run
    moments = context.moments or moments_of(traced)
    model = cut_model(traced.prunable, plan, moments())
    widths = " ".join(str(plan.widths.get(group.name, group.width)) for group in traced.prunable.searchable)
    return Candidate(model, widths, search_s, race_s)


def of_widths(context: MeasurementContext, make: Callable[[float], IntArray]) -> Candidate:
    """Return the candidate of chosen widths, which keeps channels by the default criterion.

    Args:
        context: of the setup.
        make: chooses widths [groups] that fill a share of the budget. The latency is the predicted one.
    """
    traced = context.run
    started = time.process_time()
    if LATENCY in traced.budget.limits:
        chosen = filled(make, lambda widths: load(traced, narrowed(traced.prunable, widths)))
    else:
        chosen = make(1.0)
    seconds = time.process_time() - started
    kept = dict(zip(traced.space.groups, chosen.tolist(), strict=True))
    return of_plan(context, plan_from_importance(traced.prunable, kept, context.ranked), seconds)


def filled(make: Callable[[float], Made], usage: Callable[[Made], float]) -> Made:
    """Return the first candidate that fills a budget, or the one of all attempts that comes nearest to it.

    Args:
        make: makes a candidate of a size. At 1 it is expected to fill the budget.
        usage: the measured cost of a candidate as a share of the limit, which roughly grows with the size.

    Raises:
        BudgetError: none of the candidates is within the budget.
    """
    best: tuple[float, Made] | None = None
    below, above = (0.0, 0.0), (math.inf, math.inf)  # the nearest (size, usage) on either side of the limit
    size = 1.0
    for _ in range(ATTEMPTS):
        made = make(size)
        used = usage(made)
        if FULL <= used <= 1:
            return made
        if used > 1:
            above = min(above, (size, used))
        else:
            below = max(below, (size, used))
            if best is None or used > best[0]:
                best = (used, made)
        if above[0] == math.inf or below[0] == 0:
            size *= AIM / used
        else:
            size = float(np.interp(AIM, (below[1], above[1]), (below[0], above[0])))
    if best is None:
        raise BudgetError(f"none of {ATTEMPTS} candidates is within the budget as measured")
    return best[1]


def by_heuristic(name: str) -> Arm:
    """Return the arm of a warm start, by its name in WARM_STARTS."""

    def candidate(setup: str, seed: int) -> Candidate:
        context = context_of(setup, seed)
        space, chosen = context.run.space, find_warm_start(name)
        given = Proposer(context, space)

        def widths(share: float) -> IntArray:
            part = space.under(space.budget.scaled(share, space.budget.limits))
            levels = chosen.propose(replace(given, space=part))
            return part.decode(part.ladder.ratios(levels[None])[0])

        return of_widths(context, widths)

    return candidate


def by_one_ratio(setup: str, seed: int) -> Candidate:
    """Return the candidate of one keep ratio for all groups, without the divisor of a runtime.

    If the latency is limited, it is the largest ratio whose expected latency is within the limit. Off the
    multiples of the divisor, a smaller ratio is not always a faster one.
    """
    context = context_of(setup, seed)
    traced = context.run
    if traced.table is None:
        return by_heuristic(UNIFORM)(setup, seed)
    predict = LatencyPredictor(traced.table, traced.prunable.blocks)
    space = build_problem(traced.prunable, traced.spec.with_search(divisor=1), predict).space
    ratios = np.linspace(min(variable.low for variable in space.variables), 1.0, RATIOS)
    plans = space.snap(np.repeat(ratios[:, None], len(space.variables), axis=1))
    usage = predict.expected(plans) / traced.budget.limits[LATENCY]

    def widths(share: float) -> IntArray:
        within = np.flatnonzero(usage <= share)
        if not within.size:
            raise BudgetError(f"the fastest ratio is expected at {usage.min():.2f} of the limit")
        return np.asarray(plans[within[-1]])

    return of_widths(context, widths)


def by_search(name: str, *overrides: str) -> Arm:
    """Return the arm of a search with the defaults, except for some settings.

    Args:
        name: of the arm, for its study.
        overrides: the settings.
    """

    def candidate(setup: str, seed: int) -> Candidate:
        context = context_of(setup, seed)
        study = study_of(setup, name, seed, *overrides)
        trials = sum(record.seconds or 0.0 for record in study.records())
        seconds = sum(study.facts.warm_starts.seconds.values()) + trials
        return of_plan(context, plan_of_trial(context.run, study, study.best()), seconds, race_seconds(study))

    return candidate


def study_of(setup: str, name: str, seed: int, *overrides: str) -> SearchStudy:
    """Search with the defaults, except for some settings, or resume, and return the finished study."""
    study_name = f"contest-{setup}-{name}-{seed}"
    folder = (RUNS / study_name).resolve()
    if SETUPS[setup].limits_latency:
        overrides = (f"search.divisor={context_of(setup, seed).run.spec.search.divisor}", *overrides)
    spec = spec_of(
        setup,
        seed,
        f"search.storage=sqlite:///{folder}.db",
        f"search.study={study_name}",
        "search.setting=float32 channels_last",
        f"output.folder={folder}",
        *overrides,
    )
    return searched(spec)


def race_seconds(study: SearchStudy) -> float | None:
    """Return the seconds of all stages of a race, or None if there was no race."""
    race = study.race()
    if race is None:
        return None
    return sum(stage.seconds for entry in race.entries.values() for stage in entry.stages)


def by_torch_pruning(name: str) -> Arm:
    """Return the arm of Torch-Pruning's global pruning, whose channels are of its own choice.

    If the latency is limited, it rounds widths to the divisor of the runtime.
    """

    def candidate(setup: str, seed: int) -> Candidate:
        traced = context_of(setup, seed).run
        given = traced.dense.model, traced.dense.example_inputs, name
        started = time.process_time()
        if LATENCY in traced.budget.limits:
            limit, divisor = latency_limit(traced), traced.spec.space.divisor
            model = filled(
                lambda size: torch_pruning_plans.prune(*given, min(limit * size, 1.0), divisor),
                lambda each: load(traced, each),
            )
        else:
            model = torch_pruning_plans.pruned(*given, lambda each: load(traced, each))
        return Candidate(model, "", time.process_time() - started)

    return candidate


def by_kirigami(setup: str, seed: int) -> Candidate:
    """Return the candidate of torch-kirigami's greedy choice. Its budget counts parameters only."""
    traced = context_of(setup, seed).run
    started = time.process_time()
    limit = int(traced.budget.limits["params"])
    model = kirigami.pruned(traced.dense.model, traced.dense.example_inputs, limit)
    return Candidate(model, "", time.process_time() - started)


ARMS: dict[str, Arm] = {
    UNIFORM: by_one_ratio,
    SNAPPED: by_heuristic(UNIFORM),
    **{name: by_heuristic(name) for name in WARM_STARTS if name not in (UNIFORM, DEPTH)},
    **{
        name: by_torch_pruning(name)
        for name in (*torch_pruning_plans.IMPORTANCES, torch_pruning_plans.ISOMORPHIC)
    },
    KIRIGAMI: by_kirigami,
    "random": by_search("random", "search.sampler=random", "search.warm_starts=[]"),
    SEARCH: by_search("search"),
    "search, repair alone": by_search("search-repair", "score.rungs=['repair']"),
    "search, 30 trials": by_search("search-30", "search.trials=30"),
    SEARCH_DEPTH: by_search("depth", "search.depth=true"),
}


def fits(setup: str, arm: str) -> bool:
    """Return whether an arm is one for the net and the budget of a setup."""
    chosen = SETUPS[setup]
    if arm == KIRIGAMI:
        return chosen.budget.startswith("params")
    if arm == SNAPPED:
        return chosen.limits_latency
    return arm != SEARCH_DEPTH or chosen.config not in (PAIRS, FEW)  # VGG has no residual blocks


def chosen_by(arm: str, setup: str, seed: int) -> Candidate:
    """Return the candidate of an arm. It is kept, since timings differ and a finetune may continue later."""
    path = RUNS / f"contest-{setup}-{arm}-{seed}.candidate"
    if not path.exists():
        candidate = ARMS[arm](setup, seed)
        with replacing(path) as partial:
            torch.save(candidate, partial)
    found: Candidate = torch.load(path, weights_only=False)
    return found
