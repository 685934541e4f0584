"""The warm starts: widths that known heuristics choose, tried as the first trials of a search. One row each.

    chosen = choose_warm_starts(context)           # kept in the study as it is made
    enqueue_missing(study, space)                 # at the start and at every resume

A heuristic is a function and a row in WARM_STARTS. It gives levels of the space's variables, so widths alone.
search.criterion chooses which channels stay: "taylor" keeps as many of each group as Taylor's ranking would,
but the same ones only if that is the criterion. If the share of the budget is searched, each heuristic fills
several shares, spread over the range. All measurements are made before the study exists. A search that is
interrupted by then has stored nothing and loses that time alone, and a resume measures nothing again.

A warm start of your own needs no row. A config names it as `warm_starts = ["uniform", "mypkg.starts:late"]`:

    import numpy as np

    def late(given):
        # more of the first layers than of the last
        ladder = given.space.ladder
        ratios = np.linspace(1.0, 0.2, len(ladder.top))
        return ladder.of_ratios(ratios[None])[0]      # levels; the search brings them within the budget

`given.importance("l1")` is {group: importance of its channels} by any criterion.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.criteria import Importance
from autoprune.errors import PlanError, abridged, reason_of, shown_value, summary_of
from autoprune.reconstruction import ErrorLibrary
from autoprune.run._error_library import least_error, measure_library
from autoprune.run._events import Stage
from autoprune.run._moments import moments_of
from autoprune.run._ranking import rank_channels
from autoprune.run._statistics import MeasurementContext, Sensitivity, measure_sensitivity
from autoprune.space import (
    SearchSpace,
    channel_values,
    cut,
    drop_gates,
    knapsack,
    ranking_gates,
    uniform_gates,
)
from autoprune.study import SearchStudy, WarmStart, WarmStarts, damaged
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.support.rows import Row, find_row

TRIALS_PER_WARM_START = 3
"""So many trials there are for each warm start, at least: the sampler is to have most of them."""


SHARES = 5
"""Each heuristic fills so many shares of the budget, where that is searched."""


@dataclass(frozen=True)
class Proposer:
    """What a heuristic reads, and where it notes what it measured.

    Attributes:
        context: model, data and config.
        space: the keep ratios under the budget to fill.
        measured: JSON values by the heuristic's name, kept in the study.
    """

    context: MeasurementContext
    space: SearchSpace
    measured: dict[str, Any] = field(default_factory=dict)
    _importances: dict[str, Importance] = field(default_factory=dict)
    _sensitivities: list[Sensitivity] = field(default_factory=list)
    _libraries: list[ErrorLibrary] = field(default_factory=list)

    def sensitivity(self) -> Sensitivity:
        """Return how the score falls as each variable is cut alone, measured once."""
        if not self._sensitivities:
            self._sensitivities.append(measure_sensitivity(self.context))
            self.measured["sensitivity"] = self._sensitivities[0].to_json()
        return self._sensitivities[0]

    def library(self) -> ErrorLibrary:
        """Return the error of each group at every width, its channels as the study ranks them; once."""
        if not self._libraries:
            started = time.perf_counter()
            named = {name for variable in self.space.variables for name in variable.groups}
            groups = [group for group in self.space.channel_groups if group.name in named]
            run = self.context.run
            moments = self.context.moments or moments_of(run)
            library = measure_library(run.prunable.model, groups, moments, run.watch, self.context.ranked)
            self._libraries.append(library)
            seconds = time.perf_counter() - started
            self.measured["reconstruction"] = {"seconds": seconds, **library.to_json()}
        return self._libraries[0]

    def importance(self, criterion: str) -> Importance:
        """Return the importance of all channels by a criterion, measured once."""
        if criterion not in self._importances:
            context, search = self.context, self.context.run.spec.search
            self._importances[criterion] = (
                context.ranked
                if criterion == search.criterion
                else rank_channels(context.run, criterion, context.moments)
            )
        return self._importances[criterion]

    def scores(self, importance: Mapping[str, FloatArray]) -> list[list[FloatArray]]:
        """Return importances by variable and group, as `ranking_gates` takes them."""
        return [[importance[name] for name in variable.groups] for variable in self.space.variables]


Heuristic = Callable[[Proposer], IntArray]
"""Gives levels int64 [k] of the space's variables that meet the budget; may raise where it makes no sense."""


def uniform(given: Proposer) -> IntArray:
    """Give every variable the same keep ratio."""
    ladder = given.space.ladder
    return cut(ladder, uniform_gates(ladder.rows))


def magnitude(criterion: str) -> Heuristic:
    """Make the heuristic that cuts one ranking of all channels by a norm of their filters.

    Norms grow with a layer's fan-in and scale, so each is divided by the mean of its group first.

    Reference: the default ("mean") of global pruning in Torch-Pruning, the code of Fang et al., DepGraph,
        CVPR 2023.
    """

    def heuristic(given: Proposer) -> IntArray:
        found = given.importance(criterion)
        means = {name: max(float(np.mean(values)), np.finfo(float).tiny) for name, values in found.items()}
        return _cut_ranking(given, {name: values / means[name] for name, values in found.items()})

    return heuristic


def batchnorm_scale(given: Proposer) -> IntArray:
    """Cut one ranking of all channels by the absolute scale of their BatchNorm, taken as it is.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
        section 3. Differs: the scales were not trained towards sparsity, unless the dense model was; groups
        without a BatchNorm take part as the criterion "bn" says.

    Raises:
        PlanError: the model has no BatchNorm with a scale.
    """
    modules = given.context.run.dense.model.modules()
    if not any(isinstance(module, _BatchNorm) and module.weight is not None for module in modules):
        raise PlanError("the model has no BatchNorm with a scale.")
    return _cut_ranking(given, given.importance("bn"))


def taylor(given: Proposer) -> IntArray:
    """Cut one ranking of all channels by their Taylor importance, taken as it is.

    Reference: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, section 3.
        Differs: in one cut, where the paper cuts a little at a time between training steps.
    """
    return _cut_ranking(given, given.importance("taylor"))


def taylor_knapsack(given: Proposer) -> IntArray:
    """Keep the most Taylor importance that the budget can carry; see `knapsack` for the paper."""
    ladder = given.space.ladder
    return knapsack(ladder, channel_values(ladder.rows, given.scores(given.importance("taylor"))))


def sensitivity(given: Proposer) -> IntArray:
    """Cut every variable as far as its score alone drops by no more than one tolerance; see `drop_gates`."""
    ladder = given.space.ladder
    found = given.sensitivity()
    return cut(ladder, drop_gates(ladder.rows, found.ratios, found.scores, found.baseline))


def reconstruction(given: Proposer) -> IntArray:
    """Lose the least output error that the budget allows, once all readers of narrowed groups are refitted.

    Errors of groups are those of the channels that search.criterion keeps, one group at a time, and summed.

    Reference: see `error_library` for the errors and `knapsack` for the choice.
    """
    return least_error(given.space, given.library())


@dataclass(frozen=True)
class WarmStartSpec(Row):
    """A row of WARM_STARTS, which gives levels of the space's variables."""

    propose: Heuristic


WARM_STARTS: dict[str, WarmStartSpec] = {
    "uniform": WarmStartSpec(uniform, about="one keep ratio for all groups"),
    "reconstruction": WarmStartSpec(
        reconstruction,
        reads=("score.moment_images",),
        about="the least output error within the budget, after a refit of the layers that read a group",
    ),
    "taylor-knapsack": WarmStartSpec(
        taylor_knapsack, about="the most Taylor importance that the budget can carry"
    ),
    "sensitivity": WarmStartSpec(
        sensitivity,
        reads=(
            "search.sensitivity_evaluations",
            "search.sensitivity_images",
            "search.sensitivity_batches",
        ),
        about="each group is cut until its score alone drops by one tolerance, the same for all",
    ),
    "taylor": WarmStartSpec(taylor, about="one ranking of all channels by Taylor importance"),
    "l1": WarmStartSpec(magnitude("l1"), about="one ranking of all channels by the l1 norm of their filters"),
    "bn": WarmStartSpec(batchnorm_scale, about="one ranking of all channels by their BatchNorm scale"),
    "l2": WarmStartSpec(magnitude("l2"), about="one ranking of all channels by the l2 norm of their filters"),
}
"""Name in `search.warm_starts` -> heuristic."""


def find_warm_start(name: str) -> WarmStartSpec:
    """Return a row of WARM_STARTS, or the user's own from "package.module:function".

    Raises:
        ConfigError: there is no such row (the nearest is suggested), or no such function.
    """
    return find_row(name, WARM_STARTS, "search.warm_starts", WarmStartSpec)


def choose_warm_starts(context: MeasurementContext) -> WarmStarts:
    """Ask the heuristics of `search.warm_starts` in their order for as many trials as warm starts may have.

    That is a third of `search.trials`, rounded down: a search of one or two trials has none. Where shares of
    the budget are searched, a heuristic that has room for fewer than SHARES fills fewer, spread over the
    range all the same. Heuristics that come to the same widths share a trial. One that fails is told and left
    out: the search does not need it.

    Returns:
        The trials, the seconds that each heuristic took, and the measurements of heuristics by their names.
    """
    search = context.run.spec.search
    space = context.run.space
    most = search.trials // TRIALS_PER_WARM_START
    given = Proposer(context, space)
    origins: dict[tuple[int, ...], list[str]] = {}
    seconds: dict[str, float] = {}
    crowded = []
    for name in dict.fromkeys(search.warm_starts):
        room = most - len(origins)
        if room == 0:
            crowded.append(name)
            continue
        started = time.perf_counter()
        for share, part in space.spread(min(SHARES, room)):
            try:
                levels = _decoded(space, part, find_warm_start(name).propose(replace(given, space=part)))
            except Exception as error:
                context.run.watch(Stage(f"warm start {name} is left out: {_line(error)}"))
                break
            origin = name if share is None else f"{name} at {share:.0%} of the budget"
            origins.setdefault(tuple(levels.tolist()), []).append(origin)
        seconds[name] = time.perf_counter() - started
    _report_choice(context, list(origins.values()), crowded)
    trials = [WarmStart(origin=", ".join(names), levels=list(levels)) for levels, names in origins.items()]
    return WarmStarts(trials=trials, seconds=seconds, **given.measured)


def enqueue_missing(study: SearchStudy, space: SearchSpace) -> None:
    """Queue the study's warm starts that have no trial yet, in their order.

    They are told apart by their origin: a search killed in between loses none, a resume queues none twice.
    Only processes that resume within the same milliseconds can; the second trial then takes the scores of the
    first, or is scored once more.
    """
    queued = {record.origin for record in study.records()}
    names = [variable.name for variable in space.variables]
    for entry in study.facts.warm_starts.trials:
        if entry.origin not in queued:
            _require_levels(study, entry, space)
            ratios = space.ladder.ratios(np.array([entry.levels], dtype=np.int64))[0]
            study.enqueue(dict(zip(names, ratios.tolist(), strict=True)), entry.origin)


def _require_levels(study: SearchStudy, entry: WarmStart, space: SearchSpace) -> None:
    """Refuse a warm start whose levels are not of this space.

    Raises:
        StudyError: they are not.
    """
    levels, tops = entry.levels, space.ladder.top.tolist()
    if len(levels) != len(tops) or any(not 0 <= each <= top for each, top in zip(levels, tops, strict=True)):
        raise damaged(study.name, f"the warm start {abridged(entry.origin)} is not of its space")


def _cut_ranking(given: Proposer, importance: Mapping[str, FloatArray]) -> IntArray:
    ladder = given.space.ladder
    return cut(ladder, ranking_gates(ladder.rows, given.scores(importance)))


def _decoded(space: SearchSpace, part: SearchSpace, levels: IntArray) -> IntArray:
    """Return the levels of `space` that a part's levels come to: theirs, or the nearest in the window.

    Raises:
        PlanError: the levels are not one for each variable.
    """
    levels = np.asarray(levels, dtype=np.int64)
    if levels.shape != part.ladder.top.shape or ((levels < 0) | (levels > part.ladder.top)).any():
        raise PlanError(f"it gave {shown_value(levels.tolist())}, expected a level of each variable.")
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
