"""The heuristics behind the warm starts of a search. Each is a function and a row of WARM_STARTS.

A heuristic returns levels of the space's variables, which decide widths alone. search.criterion decides which
channels stay: "taylor" keeps as many channels of each group as Taylor's ranking would, but the same channels
only if that is the criterion.

A warm start of your own needs no row. A config names it as `warm_starts = ["uniform", "mypkg.starts:late"]`:

    import numpy as np

    def late(given):
        # more of the first layers than of the last
        ladder = given.space.ladder
        ratios = np.linspace(1.0, 0.2, len(ladder.top))
        return ladder.of_ratios(ratios[None])[0]      # levels. The search brings them within the budget.

`given.importance("l1")` is {group: importance of its channels} by any criterion.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import rankdata
from torch.nn.modules.batchnorm import _BatchNorm

from autoprune.criteria import Importance
from autoprune.errors import PlanError
from autoprune.flow import least_error, measure_library
from autoprune.graph.topology import topologies
from autoprune.reconstruction import ErrorLibrary
from autoprune.run._measuring.moments import moments_of
from autoprune.run._measuring.statistics import (
    MeasurementContext,
    Sensitivity,
    measure_blocks,
    measure_sensitivity,
)
from autoprune.space import (
    DepthSpace,
    SearchSpace,
    channel_values,
    cut,
    drop_gates,
    knapsack,
    ranking_gates,
    uniform_gates,
)
from autoprune.support.arrays import FloatArray, IntArray
from autoprune.support.rows import Row, find_row


@dataclass(frozen=True)
class Proposer:
    """The argument of a heuristic: the space to fill, and measurements that are made at their first use.

    Attributes:
        context: the resolved run, with its model and data.
        space: the keep ratios, and the budget to fill.
        measured: measurements as JSON, by name, which the study stores.
    """

    context: MeasurementContext
    space: SearchSpace
    measured: dict[str, Any] = field(default_factory=dict)
    _sensitivities: list[Sensitivity] = field(default_factory=list)
    _libraries: list[ErrorLibrary] = field(default_factory=list)

    def sensitivity(self) -> Sensitivity:
        """Return the scores as each variable is cut alone, measured once."""
        if not self._sensitivities:
            self._sensitivities.append(self.context.earlier.sensitivity or measure_sensitivity(self.context))
            self.measured["sensitivity"] = self._sensitivities[0].to_json()
        return self._sensitivities[0]

    def falls(self) -> Mapping[str, float]:
        """Return {block: fall of the score} as each block is dropped alone, measured once."""
        if "blocks" not in self.measured:
            started = time.perf_counter()
            falls = measure_blocks(self.context)
            self.measured["blocks"] = {"seconds": time.perf_counter() - started, "falls": falls}
        found: Mapping[str, float] = self.measured["blocks"]["falls"]
        return found

    def library(self) -> ErrorLibrary:
        """Return the output error of each group at every width, measured once.

        Channels go in the order of the study's ranking.
        """
        if not self._libraries:
            started = time.perf_counter()
            named = {name for variable in self.space.variables for name in variable.groups}
            groups = [group for group in self.space.channel_groups if group.name in named]
            context, run = self.context, self.context.run
            library = context.earlier.library or measure_library(
                run.prunable.model, groups, context.moments or moments_of(run), run.watch, context.ranked
            )
            self._libraries.append(library)
            seconds = time.perf_counter() - started
            self.measured["reconstruction"] = {"seconds": seconds, **library.to_json()}
        return self._libraries[0]

    def importance(self, criterion: str) -> Importance:
        """Return the importance of all channels by a criterion, measured once."""
        return self.context.importance(criterion)

    def scores(self, importance: Mapping[str, FloatArray]) -> list[list[FloatArray]]:
        """Return importances by variable and group, as `ranking_gates` expects them."""
        return [[importance[name] for name in variable.groups] for variable in self.space.variables]


Heuristic = Callable[[Proposer], IntArray]
"""Returns levels int64 [k] of the variables within the budget. May raise if the model lacks its input."""


def uniform(given: Proposer) -> IntArray:
    """Give every variable the same keep ratio."""
    ladder = given.space.ladder
    return cut(ladder, uniform_gates(ladder.rows))


def magnitude(criterion: str) -> Heuristic:
    """Return the heuristic that cuts one ranking of all channels by a norm of their filters.

    Norms grow with the fan-in and the scale of a layer, so each norm is first divided by the mean of its
    group.

    Reference: the default ("mean") of global pruning in Torch-Pruning, the code of Fang et al., DepGraph,
        CVPR 2023.
    """

    def heuristic(given: Proposer) -> IntArray:
        found = given.importance(criterion)
        means = {name: max(float(np.mean(values)), np.finfo(float).tiny) for name, values in found.items()}
        return _cut_ranking(given, {name: values / means[name] for name, values in found.items()})

    return heuristic


def batchnorm_scale(given: Proposer) -> IntArray:
    """Cut one ranking of all channels by the absolute scale of their BatchNorm, without normalisation.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
        section 3. Differs: the scales are those of the dense model, which need not have been trained towards
        sparsity. Groups without a BatchNorm are ranked by the fallback of the criterion "bn".

    Raises:
        PlanError: the model has no BatchNorm with a scale.
    """
    modules = given.context.run.dense.model.modules()
    if not any(isinstance(module, _BatchNorm) and module.weight is not None for module in modules):
        raise PlanError("the model has no BatchNorm with a scale.")
    return _cut_ranking(given, given.importance("bn"))


def threshold(criterion: str) -> Heuristic:
    """Return the heuristic that cuts one ranking of all channels by a criterion, without normalisation.

    Reference: for "taylor", Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019,
        section 3. For "lamp", Lee et al., Layer-Adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021,
        section 3. For "fisher", Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning,
        2018, section 2, which estimates the saliency of LeCun et al., Optimal Brain Damage, NIPS 1989, by
        squared gradients. All differ: channels are cut at once, not a few at a time between training steps.
    """
    return lambda given: _cut_ranking(given, given.importance(criterion))


def isomorphic(given: Proposer) -> IntArray:
    """Cut one ranking by Taylor importance for each topology, all at the same share of their channels.

    Importances of layers that differ in kind do not compare, but those of groups of one topology do.

    Reference: Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024, section 3. See `topologies`.
    """
    found, topology = given.importance("taylor"), topologies(given.context.run.prunable)
    classes: dict[int, list[str]] = {}
    for variable in given.space.variables:
        for name in variable.groups:
            classes.setdefault(topology[name], []).append(name)
    shares: dict[str, FloatArray] = {}
    for names in classes.values():
        # A rank as a share of its class: one threshold then cuts the same share of each class.
        ranks = rankdata(np.concatenate([found[name] for name in names]))
        ends = np.cumsum([len(found[name]) for name in names])
        shares.update(zip(names, np.split(ranks / len(ranks), ends[:-1]), strict=True))
    return _cut_ranking(given, shares)


def taylor_knapsack(given: Proposer) -> IntArray:
    """Keep the most Taylor importance within the budget.

    Reference: see `knapsack`.
    """
    ladder = given.space.ladder
    return knapsack(ladder, channel_values(ladder.rows, given.scores(given.importance("taylor"))))


def sensitivity(given: Proposer) -> IntArray:
    """Cut every variable until its score alone drops by a tolerance, the same for all. See `drop_gates`."""
    ladder = given.space.ladder
    found = given.sensitivity()
    return cut(ladder, drop_gates(ladder.rows, found.ratios, found.scores, found.baseline))


def reconstruction(given: Proposer) -> IntArray:
    """Minimise the output error within the budget, after a refit of all layers that read a narrowed group.

    The error of a plan is taken as the sum of the errors of its groups, each narrowed alone to the channels
    that search.criterion keeps.

    Reference: see `error_library` for the errors and `knapsack` for the choice.
    """
    return least_error(given.space, given.library())


def depth(given: Proposer) -> IntArray:
    """Drop blocks for half of the cut, and give the rest one keep ratio.

    Those blocks go first whose fall of the score, each dropped alone, is least for the cost that they save.

    Raises:
        PlanError: the space has no blocks, or there is no time to score them.
    """
    space = given.space
    if not isinstance(space, DepthSpace):
        raise PlanError("search.depth is not set.")
    falls, ladder = given.falls(), space.ladder
    alone = np.repeat(ladder.top[None], len(space.blocks), axis=0)
    np.fill_diagonal(alone, 0)
    whole = float(ladder.usage(ladder.top[None])[0])
    saved = whole - ladder.usage(alone)
    loss = np.array([falls[block.name] for block in space.blocks]) / np.maximum(saved, 1e-9)
    kept, levels = np.ones(len(space.blocks), dtype=np.bool_), ladder.top.copy()
    for place in np.argsort(loss, kind="stable").tolist():
        kept[place], levels[place] = False, 0
        # Half of the cut on a logarithmic scale: the widths then save as large a share again.
        if float(ladder.usage(levels[None])[0]) <= math.sqrt(whole):
            break
    part = space.with_blocks(kept)
    widths = part.ladder.widths(cut(part.ladder, uniform_gates(part.ladder.rows))[None])[0]
    nearest: IntArray = ladder.of_ratios(space.encode(widths)[None])[0]
    return nearest


@dataclass(frozen=True)
class WarmStartSpec(Row):
    """A row of WARM_STARTS.

    Attributes:
        propose: returns levels of the space's variables.
        family: heuristics with one idea in common, of which the best enters the race, or "" if it is alone.
        drops_blocks: whether the space that it fills has the blocks among its variables. By default all
            blocks are kept.
    """

    propose: Heuristic
    family: str = ""
    drops_blocks: bool = False


DEPTH = "depth"
"""Name of the warm start that drops blocks."""

WARM_STARTS: dict[str, WarmStartSpec] = {
    "uniform": WarmStartSpec(uniform, about="one keep ratio for all groups"),
    DEPTH: WarmStartSpec(
        depth,
        drops_blocks=True,
        reads=("search.sensitivity_images", "search.sensitivity_batches"),
        about="drops the blocks that cost the least score, for half of the cut, if search.depth is set",
    ),
    "reconstruction": WarmStartSpec(
        reconstruction,
        family="error",
        reads=("score.moment_images",),
        about="the least output error within the budget, after a refit of the layers that read a group",
    ),
    "taylor-knapsack": WarmStartSpec(
        taylor_knapsack, family="gradient", about="the most Taylor importance that the budget can carry"
    ),
    "sensitivity": WarmStartSpec(
        sensitivity,
        family="error",
        reads=(
            "search.sensitivity_evaluations",
            "search.sensitivity_images",
            "search.sensitivity_batches",
        ),
        about="each group is cut until its score alone drops by one tolerance, the same for all",
    ),
    "taylor": WarmStartSpec(
        threshold("taylor"), family="gradient", about="one ranking of all channels by Taylor importance"
    ),
    "l1": WarmStartSpec(
        magnitude("l1"),
        family="magnitude",
        about="one ranking of all channels by the l1 norm of their filters",
    ),
    "bn": WarmStartSpec(
        batchnorm_scale, family="magnitude", about="one ranking of all channels by their BatchNorm scale"
    ),
    "l2": WarmStartSpec(
        magnitude("l2"),
        family="magnitude",
        about="one ranking of all channels by the l2 norm of their filters",
    ),
    "lamp": WarmStartSpec(
        threshold("lamp"),
        family="magnitude",
        about="one ranking of all channels by the share of their squared norm in their layer",
    ),
    "fisher": WarmStartSpec(
        threshold("fisher"),
        family="gradient",
        about="one ranking of all channels by their saliency from squared gradients",
    ),
    "isomorphic": WarmStartSpec(
        isomorphic,
        family="gradient",
        about="one ranking by Taylor importance for each kind of groups, all cut by the same share",
    ),
}
"""{name in search.warm_starts: heuristic}."""


def find_warm_start(name: str) -> WarmStartSpec:
    """Return a row of WARM_STARTS, or a user's own from "package.module:function".

    Raises:
        ConfigError: the row or the function does not exist. The message suggests the nearest row.
    """
    return find_row(name, WARM_STARTS, "search.warm_starts", WarmStartSpec)


def family_of(name: str) -> str:
    """Return the family of a warm start, which is its name if it has none, or if it is a user's own."""
    row = WARM_STARTS.get(name)
    return (row.family if row is not None else "") or name


def _cut_ranking(given: Proposer, importance: Mapping[str, FloatArray]) -> IntArray:
    ladder = given.space.ladder
    return cut(ladder, ranking_gates(ladder.rows, given.scores(importance)))
