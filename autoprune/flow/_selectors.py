"""The ways to choose the channels of a pass, one function and one row of SELECTORS each.

Example:
    plan = find_selector("uniform").select(Selection(bench, state))
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from autoprune.config.settings import RunConfig, SelectSettings
from autoprune.criteria import Importance, channel_scales, check_rule
from autoprune.data import spread_samples
from autoprune.errors import ConfigError, PlanError, a_kind
from autoprune.flow._error_library import least_error, measure_library
from autoprune.flow._state import FlowState
from autoprune.flow._workbench import Workbench, rule_of
from autoprune.graph import Plan, Prunable
from autoprune.score import plan_cuts, score_single_cuts
from autoprune.space import Budget, SearchSpace, SpaceSpec, cut, drop_gates, matches, uniform_gates
from autoprune.sparsity import PENALTIES, PenaltySpec, check_share, threshold_plan, threshold_plan_within
from autoprune.support.arrays import IntArray
from autoprune.support.rows import Row, find_row, quoted


@dataclass(frozen=True, eq=False)
class Selection:
    """The input of a selector.

    Attributes:
        bench: settings, data and the budget of the pass.
        state: the model to cut.
    """

    bench: Workbench
    state: FlowState

    @property
    def prunable(self) -> Prunable:
        """The traced model to cut."""
        return self.state.prunable

    def space(self) -> SearchSpace:
        """Return the widths that meet the budget of the pass, or all widths if it has none.

        Raises:
            BudgetError: no plan meets it. The message names the smallest reachable cost.
        """
        whole = Budget(macs=int(self.prunable.cost().macs))
        return self.bench.search_space(self.prunable, self.bench.budget or whole)

    def plan(self, space: SearchSpace, levels: IntArray) -> Plan:
        """Return the plan for levels of a space, with the channels that the criterion ranks highest."""
        widths = dict(zip(space.groups, space.ladder.widths(levels[None])[0].tolist(), strict=True))
        return self.bench.choose(self.prunable, widths)


Selector = Callable[[Selection], Plan]
"""Returns the channels to keep. The plan need not name groups that stay whole."""


def global_threshold(given: Selection) -> Plan:
    """Cut the smallest channels of all groups, as many as the budget, the share or the threshold asks.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    section 3.
    """
    select, prunable = given.bench.config.select, given.prunable
    sizes, floor = _sizes(given), select.floor or None
    if given.bench.budget is None:
        return threshold_plan(prunable, select.share, select.threshold, floor=floor, importance=sizes)
    cost = given.bench.cost(prunable)
    return threshold_plan_within(prunable, given.bench.budget, cost=cost, floor=floor, importance=sizes)


def uniform(given: Selection) -> Plan:
    """Give all groups one keep ratio: the largest within the budget, or the one that the share leaves."""
    space, bench = given.space(), given.bench
    if bench.budget is not None:
        return given.plan(space, cut(space.ladder, uniform_gates(space.ladder.rows)))
    kept = 1.0 - (bench.config.select.share or 0.0)
    return given.plan(space, space.ladder.of_ratios(np.full((1, len(space.variables)), kept))[0])


def library(given: Selection) -> Plan:
    """Choose the widths that lose the least output error within the budget, after a refit of the readers.

    Reference: see `autoprune.reconstruction.error_library`.
    """
    space, bench = given.space(), given.bench
    named = {name for variable in space.variables for name in variable.groups}
    groups = [group for group in space.channel_groups if group.name in named]
    moments, ranked = lambda: bench.moments(given.prunable), bench.ranked(given.prunable)
    found = measure_library(given.prunable.model, groups, moments, bench.watch, ranked)
    return given.plan(space, least_error(space, found))


def sensitivity(given: Selection) -> Plan:
    """Cut each group until its score alone drops by one tolerance, the same for all.

    Reference: see `autoprune.space.drop_gates`.
    """
    space, bench, search = given.space(), given.bench, given.bench.config.search
    rows = space.ladder.rows
    trials = plan_cuts(rows, search.sensitivity_evaluations)
    images = spread_samples(bench.data.val, search.sensitivity_images)
    done = bench.counter("sensitivity", 1 + len(trials))
    cutter = bench.cutter(given.prunable)
    found = score_single_cuts(cutter, space, trials, images, bench.task, done=done)
    return given.plan(space, cut(space.ladder, drop_gates(rows, found.ratios, found.scores, found.baseline)))


def by_study(given: Selection) -> Plan:
    """Search the widths by a study with [search] and [score], and take the best trial."""
    assert given.bench.search is not None  # a flow outside the verb `prune` has no study
    return given.bench.search(given.bench, given.state)


def _sizes(given: Selection) -> Importance:
    """Return the sizes that one threshold compares, without the groups that the search space skips.

    They are those of the criterion if [select] names one, or those that the penalty acts on.
    """
    bench, prunable = given.bench, given.prunable
    if bench.config.select.criterion is not None:
        sizes = bench.ranked(prunable)
    else:
        sizes = _penalised_sizes(bench.config, bench.stages, prunable)
    return {name: values for name, values in sizes.items() if not matches(name, bench.space.skip)}


def _penalised_sizes(config: RunConfig, stages: tuple[str, ...], prunable: Prunable) -> Importance:
    """Return the sizes that the penalty acts on, which are the BatchNorm scales if there is none."""
    if "sparsify" not in stages:
        return channel_scales(prunable.model, prunable.searchable)
    spec = find_row(config.sparsify.penalty, PENALTIES, "sparsify.penalty", PenaltySpec)
    return spec.ranked(prunable.model, prunable)


def check_threshold(config: RunConfig, stages: tuple[str, ...], prunable: Prunable, space: SpaceSpec) -> None:
    """Check before any training that one threshold has sizes to compare, and that the floor allows the share.

    Args:
        config: the settings.
        stages: of a pass.
        prunable: the traced dense model. Its widths decide, not its weights.
        space: the groups that stay whole.

    Raises:
        ConfigError: no channel of the model has a size, or the search space skips all that have one.
        PlanError: the floor allows no such share in the first pass.
    """
    select = config.select
    if select.criterion is None:
        names = list(_penalised_sizes(config, stages, prunable))
    else:
        names = [group.name for group in prunable.searchable]
    model = type(prunable.model).__name__
    if not names:
        raise ConfigError(
            'select.by: "global-threshold" compares BatchNorm scales, but in '
            f'{model} no BatchNorm scales a searchable group. Set select.criterion, such as "lamp".'
        )
    widths = [prunable.group(name).width for name in names if not matches(name, space.skip)]
    if not widths and len(names) == len(prunable.searchable):
        raise ConfigError(f"select.by: the search space skips every group of {model}. Shorten its skip.")
    if not widths:
        raise ConfigError(
            f"select.by: the search space skips every group of {model} that a BatchNorm scales. Shorten its "
            'skip, or set select.criterion, such as "lamp".'
        )
    if select.share is not None:
        check_share(select.share, widths, select.floor or None)


@dataclass(frozen=True)
class SelectorSpec(Row):
    """A row of SELECTORS.

    Attributes:
        select: returns the plan of a pass.
        amounts: keys of [select] that may set how much is cut, in place of a budget.
        has_rules: whether it follows the keys RULES of [select].
        has_space: whether its widths are those of the search space. If not, it only leaves the groups whole
            that the space skips.
    """

    select: Selector
    amounts: tuple[str, ...] = ()
    has_rules: bool = True
    has_space: bool = True


SELECTORS: dict[str, SelectorSpec] = {
    "library": SelectorSpec(
        library,
        about="the least output error within the budget, after a refit of the layers that read a group",
    ),
    "global-threshold": SelectorSpec(
        global_threshold,
        amounts=("share", "threshold"),
        has_rules=False,
        has_space=False,
        about="one threshold for the channels of all groups, the one that meets the budget",
    ),
    "uniform": SelectorSpec(uniform, amounts=("share",), about="one keep ratio for all groups"),
    "sensitivity": SelectorSpec(
        sensitivity,
        about="each group is cut until its score alone drops by one tolerance, the same for all",
    ),
    "search": SelectorSpec(
        by_study,
        has_rules=False,
        about="a study under [search] and [score], whose best trial gives the channels",
    ),
}
"""{name in select.by: selector}."""


def find_selector(name: str) -> SelectorSpec:
    """Return a row of SELECTORS, or a user's own from "package.module:function".

    Raises:
        ConfigError: the row or the function does not exist. The message suggests the nearest row.
    """
    return find_row(name, SELECTORS, "select.by", SelectorSpec)


def select(given: Selection) -> Plan:
    """Choose the channels of a pass by the selector that the settings name.

    Raises:
        PlanError: the plan does not fit the model, or would empty a group.
        BudgetError: no plan meets the budget.
    """
    by = given.bench.config.select.by
    plan = find_selector(by).select(given)
    if not isinstance(plan, Plan):
        raise PlanError(f'select.by: "{by}" gave {a_kind(plan)}, expected a Plan.')
    given.prunable.check(plan)
    return plan


RULES = ("ranking", "residual", "remove", "ties", "skip_fall")
"""Keys of [select] that decide which groups are narrowed together, and which channels go."""


def check_rules(settings: SelectSettings, criterion: str) -> None:
    """Check that the selector follows the rules of [select], and the criterion too.

    Args:
        settings: [select].
        criterion: the criterion that ranks the channels.

    Raises:
        ConfigError: it does not.
    """
    spec, defaults = find_selector(settings.by), SelectSettings()
    for key in RULES:
        if getattr(settings, key) != getattr(defaults, key) and not spec.has_rules:
            raise ConfigError(
                f'select.{key}: select.by = "{settings.by}" does not follow it. Leave it out, or use '
                f"{quoted(name for name, row in SELECTORS.items() if row.has_rules)}."
            )
    try:
        check_rule(criterion, rule_of(settings), where="select.")
    except PlanError as error:
        raise ConfigError(str(error)) from None


def check_amounts(by: str, share: float | None, threshold: float | None, *, has_budget: bool) -> None:
    """Check that exactly one of the budget, the share and the threshold decides how much is cut.

    A user's own selector may read any of them, or none.

    Raises:
        ConfigError: none does, or several do, or the selector reads none of the given ones.
    """
    spec = find_selector(by)
    if ":" in by and not spec.amounts:
        return
    given = [name for name, value in (("share", share), ("threshold", threshold)) if value is not None]
    for name in given:
        if name not in spec.amounts:
            rows = ", ".join(f'"{row}"' for row, each in SELECTORS.items() if name in each.amounts)
            raise ConfigError(
                f'select.{name}: select.by = "{by}" does not read it. Use {rows}, or set [budget].'
            )
    if len(given) + has_budget != 1:
        got = " and ".join([*(["[budget]"] if has_budget else []), *(f"select.{name}" for name in given)])
        choices = ["[budget]", *(f"select.{name}" for name in spec.amounts)]
        expected = f"one of {', '.join(choices)}" if spec.amounts else '[budget], such as flops = "50%"'
        raise ConfigError(f"select: got {got or 'no amount to cut'}, expected {expected}.")
