"""Chooses the warm starts of a search, the widths of known heuristics, and queues them as its first trials.

They are chosen before the study exists, so a search that is interrupted by then stores nothing, and a resume
measures nothing again.

Example:
    chosen = choose_warm_starts(context)          # stored in the study when it is created
    enqueue_missing(study, space)                 # at the start and at every resume
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from autoprune.config.settings import SearchSettings
from autoprune.errors import PlanError, abridged, reason_of, shown_value, summary_of
from autoprune.run._measuring.heuristics import DEPTH, Proposer, find_warm_start
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.samplers import MovingBudget
from autoprune.space import SearchSpace
from autoprune.study import SearchStudy, WarmStart, WarmStarts, damaged
from autoprune.support.arrays import IntArray
from autoprune.support.events import Stage

TRIALS_PER_WARM_START = 3
"""Smallest number of trials for each warm start, so that the sampler proposes most trials."""

SHARES = 5
"""Number of budget shares that each heuristic fills, if the share of the budget is searched."""

BISECTED = 32
"""Number of budgets for which a search with a tolerance has a plan of each heuristic."""

FIRST = "reconstruction"
"""The heuristic whose plans are bisected, if `search.warm_starts` has it."""


def choose_warm_starts(context: MeasurementContext) -> WarmStarts:
    """Run the heuristics of `search.warm_starts` in their order.

    At most a third of `search.trials` are warm starts, rounded down: a search of one or two trials has none.
    If the share of the budget is searched, each heuristic fills up to SHARES of them, spread over the range.
    Heuristics with equal widths share a trial. A heuristic that fails is reported and left out, because a
    search does not need it.

    Returns:
        The trials, the seconds of each heuristic, and the measurements by name.
    """
    search = context.run.spec.search
    space = context.run.space
    most = search.trials // TRIALS_PER_WARM_START
    given = Proposer(context, space)
    origins: dict[tuple[int, ...], list[str]] = {}
    seconds: dict[str, float] = {}
    crowded = []
    for name in _names(search):
        room = most - len(origins)
        if room == 0:
            crowded.append(name)
            continue
        started = time.perf_counter()
        try:
            spec = find_warm_start(name)
            for share, part in space.spread(min(SHARES, room), dropping=spec.drops_blocks):
                levels = _decoded(space, part, spec.propose(replace(given, space=part)))
                origin = name if share is None else f"{name} at {share:.0%} of the budget"
                origins.setdefault(tuple(levels.tolist()), []).append(origin)
        except Exception as error:
            context.run.watch(Stage(f"warm start {name} is left out: {_line(error)}"))
        seconds[name] = time.perf_counter() - started
    _report_choice(context, list(origins.values()), crowded)
    trials = [WarmStart(origin=", ".join(names), levels=list(levels)) for levels, names in origins.items()]
    return WarmStarts(trials=trials, seconds=seconds, **given.measured)


def choose_plans(context: MeasurementContext) -> tuple[dict[str, list[list[int]]], WarmStarts]:
    """Run the heuristics of `search.warm_starts` under BISECTED budgets each, for a search with a tolerance.

    The least output error comes first, because its plans are bisected. A heuristic that fails is reported and
    left out.

    Returns:
        {heuristic: levels of all variables, by ascending budget}, and the measurements without any trials.
    """
    space = context.run.space
    given = Proposer(context, space)
    names = sorted(_names(context.run.spec.search), key=FIRST.__ne__)
    plans: dict[str, list[list[int]]] = {}
    seconds: dict[str, float] = {}
    for name in names:
        started = time.perf_counter()
        try:
            spec = find_warm_start(name)
            plans[name] = [
                _decoded(space, part, spec.propose(replace(given, space=part))).tolist()
                for _, part in space.spread(BISECTED, by_ratio=True, dropping=spec.drops_blocks)
            ]
        except Exception as error:
            context.run.watch(Stage(f"warm start {name} is left out: {_line(error)}"))
        seconds[name] = time.perf_counter() - started
    if plans:
        bisected, *others = plans
        compared = f", then compared with {', '.join(others)}" if others else ""
        context.run.watch(Stage(f"the budget is bisected over plans of {bisected}{compared}"))
    return plans, WarmStarts(trials=[], seconds=seconds, **given.measured)


def moving_budget(study: SearchStudy, space: SearchSpace, trials: int) -> MovingBudget | None:
    """Return the rule that moves the budget of a study, or None if its search has no tolerance.

    Raises:
        StudyError: the stored plans are not of the space.
    """
    tolerance, least = study.facts.tolerance, study.least_score
    if tolerance is None or least is None:
        return None
    for name, rows in tolerance.plans.items():
        if not rows or not all(_is_of_space(row, space) for row in rows):
            raise damaged(study.name, f"the plans of {abridged(name)} are not of its space")
    plans = {name: np.array(rows, dtype=np.int64) for name, rows in tolerance.plans.items()}
    return MovingBudget(space, least, plans, trials)


def _is_of_space(levels: Sequence[int], space: SearchSpace) -> bool:
    tops = space.ladder.top.tolist()
    return len(levels) == len(tops) and all(0 <= each <= top for each, top in zip(levels, tops, strict=True))


def _names(search: SearchSettings) -> list[str]:
    """Return the warm starts of a search. If the depth is searched, the second one drops blocks."""
    names = list(dict.fromkeys(search.warm_starts))
    if search.depth and names and DEPTH not in names:
        names.insert(1, DEPTH)
    return names


def enqueue_missing(study: SearchStudy, space: SearchSpace) -> None:
    """Queue those warm starts of a study that have no trial yet, in their order.

    Trials are identified by their origin, so a killed search loses none, and a resume queues none twice. Two
    processes that resume within the same milliseconds may queue one twice. The second trial then reuses the
    scores of the first, or is scored again.
    """
    queued = {record.origin for record in study.records()}
    names = [variable.name for variable in space.variables]
    for entry in study.facts.warm_starts.trials:
        if entry.origin not in queued:
            _require_levels(study, entry, space)
            ratios = space.ladder.ratios(np.array([entry.levels], dtype=np.int64))[0]
            study.enqueue(dict(zip(names, ratios.tolist(), strict=True)), entry.origin)


def _require_levels(study: SearchStudy, entry: WarmStart, space: SearchSpace) -> None:
    """Check that the levels of a stored warm start belong to the space.

    Raises:
        StudyError: they do not.
    """
    if not _is_of_space(entry.levels, space):
        raise damaged(study.name, f"the warm start {abridged(entry.origin)} is not of its space")


def _decoded(space: SearchSpace, part: SearchSpace, levels: IntArray) -> IntArray:
    """Translate levels of a `part` of the space, one share of the budget, into levels of the whole space.

    Raises:
        PlanError: there is not one valid level for each variable.
    """
    levels = np.asarray(levels, dtype=np.int64)
    if levels.shape != part.ladder.top.shape or ((levels < 0) | (levels > part.ladder.top)).any():
        raise PlanError(f"got {shown_value(levels.tolist())}, expected a level of each variable.")
    widths = part.decode(part.ladder.ratios(levels[None])[0])
    nearest: IntArray = space.ladder.of_ratios(space.encode(widths)[None])[0]
    return nearest


def _report_choice(context: MeasurementContext, origins: list[list[str]], crowded: list[str]) -> None:
    if origins:
        context.run.watch(Stage(f"warm starts: {'; '.join(', '.join(names) for names in origins)}"))
    if crowded:
        context.run.watch(
            Stage(
                "warm starts left out, since they may take a third of "
                f"{context.run.spec.search.trials} trials: "
                f"{', '.join(crowded)}"
            )
        )


def _line(error: Exception) -> str:
    return reason_of(error) if isinstance(error, PlanError) else summary_of(error)
