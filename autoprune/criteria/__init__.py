"""Criteria rank the channels of a group, and plans keep the best ones. Each criterion is a row of CRITERIA.

Example:
    plan = make_plan(prunable, 0.5, criterion="l1")

A file holds a family of criteria. A new one is a function from a `CriterionInput` to
{group name: importance}, and a row in CRITERIA with its traits.

A criterion of your own needs no row. A config names its function or its spec,
`criterion = "mypkg.ranking:spread"`, and `make_plan` takes the same name, or the function itself:

    from autoprune.criteria import CriterionInput, CriterionSpec, Importance, filter_slices

    def spread(given: CriterionInput) -> Importance:
        found = {}
        for group in given.groups:
            filters = filter_slices(given.model, group)      # float64 [width, n] for each layer
            found[group.name] = sum(each.std(dim=1) for each in filters)
        return found

    def brightness(given: CriterionInput) -> Importance:
        inputs, _ = next(iter(given.data))
        return {group.name: [float(inputs.mean())] * group.width for group in given.groups}

    by_images = CriterionSpec(brightness, needs="images")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autoprune.criteria._base import (
    Criterion,
    CriterionInput,
    Importance,
    LossFunction,
    TracedModel,
    filter_slices,
    nothing_done,
    undisturbed,
)
from autoprune.criteria._plans import mixed, plan_from_importance, resolve_widths, split_blocks
from autoprune.criteria._rules import Rule, greedy_plan, ranked_by_shortcut
from autoprune.criteria.activations import activation, apoz, chip, hrank
from autoprune.criteria.gradients import fisher, taylor
from autoprune.criteria.reconstruction import lasso, lasso_by_layers, obs
from autoprune.criteria.weights import bn, channel_scales, fpgm, l1, l2, lamp, random, scale_members
from autoprune.errors import AutopruneError, ConfigError, PlanError, a_kind
from autoprune.graph.groups import ChannelGroup
from autoprune.graph.plan import Plan
from autoprune.graph.prunable import Prunable
from autoprune.reconstruction import Moments
from autoprune.support.rows import Row, find_row, guarding, quoted
from autoprune.support.usercode import entry

__all__ = [
    "CRITERIA",
    "Criterion",
    "CriterionInput",
    "CriterionSpec",
    "Importance",
    "Rule",
    "channel_scales",
    "check_rule",
    "choose_channels",
    "filter_slices",
    "find_criterion",
    "importance",
    "make_plan",
    "mixed",
    "plan_from_importance",
    "resolve_widths",
    "scale_members",
]


@dataclass(frozen=True)
class CriterionSpec(Row):
    """A row of CRITERIA.

    Attributes:
        rank: computes the importance of all channels.
        needs: the data that it reads in addition to the weights: "images", "gradients" (images and targets),
            or "moments" of the layers' inputs, which the search measures.
        by_layers: chooses the channels of one group after the other, as a greedy ranking needs it. None
            ranks each group in the model as pruned so far.
    """

    rank: Criterion
    needs: Literal["weights", "images", "gradients", "moments"] = "weights"
    by_layers: Callable[[CriterionInput], Plan] | None = None


_MOMENTS = ("score.moment_images",)

CRITERIA: dict[str, CriterionSpec] = {
    "l1": CriterionSpec(l1, about="the sum of absolute weights of its filters"),
    "l2": CriterionSpec(l2, about="the Euclidean norm of its filters"),
    "lamp": CriterionSpec(lamp, about="the share that its squared norm has in its layer"),
    "bn": CriterionSpec(bn, about="the scale of the BatchNorm behind it"),
    "random": CriterionSpec(random, about="drawn at random: the control that a criterion has to beat"),
    "fpgm": CriterionSpec(fpgm, about="the distance to the other filters of its layer"),
    "taylor": CriterionSpec(taylor, needs="gradients", about="weights times gradients on training images"),
    "fisher": CriterionSpec(
        fisher, needs="gradients", about="activations times their gradients on training images"
    ),
    "activation": CriterionSpec(
        activation, needs="images", about="the mean size of its feature maps on training images"
    ),
    "apoz": CriterionSpec(
        apoz, needs="images", about="the share of its feature maps that is not zero on training images"
    ),
    "hrank": CriterionSpec(hrank, needs="images", about="the ranks of its feature maps on training images"),
    "chip": CriterionSpec(chip, needs="images", about="how independent its feature maps are of the others"),
    "lasso": CriterionSpec(
        lasso,
        needs="moments",
        by_layers=lasso_by_layers,
        reads=_MOMENTS,
        about="when it enters the LASSO path that explains the outputs of the layers that read it",
    ),
    "obs": CriterionSpec(
        obs,
        needs="moments",
        reads=_MOMENTS,
        about="the error that the layers which read it have without it, after a refit",
    ),
}
"""{name: criterion}. `about` is the quantity by which a channel is ranked."""


def find_criterion(
    name: str, error_class: type[AutopruneError] = ConfigError, *, where: str = "search.criterion"
) -> CriterionSpec:
    """Return a row of CRITERIA, or the user's own from "package.module:function".

    Args:
        name: name of the row or the function.
        error_class: class of the error if there is no such row.
        where: the key that gave the name, if the error is a ConfigError.

    Raises:
        AutopruneError: there is no such row (the nearest is suggested). Its class is `error_class`.
        ConfigError: there is no such function.
    """
    key = where if error_class is ConfigError else "criterion"
    return find_row(name, CRITERIA, key, CriterionSpec, error_class)


def importance(
    prunable: TracedModel,
    criterion: str | Criterion = "l1",
    data: Iterable[Any] | None = None,
    loss: LossFunction | None = None,
    seed: int = 0,
    moments: Callable[[], Moments] | None = None,
    widths: Mapping[str, int] | None = None,
    rule: Rule | None = None,
    groups: Sequence[ChannelGroup] | None = None,
) -> Importance:
    """Rank the channels of every group that is not frozen. The dense model stays unchanged.

    Args:
        prunable: the traced model.
        criterion: a name in CRITERIA, a function, or its "package.module:function".
        data: batches (inputs, targets), for criteria that run the model. Most of them read no targets.
        loss: (outputs in eval mode, targets) -> scalar, for criteria that read gradients. The default is
            cross-entropy.
        seed: of every draw.
        moments: returns the moments of the layers' inputs, for criteria that read them. Without it they
            measure `data`.
        widths: {group name: channels that will be kept}, if the ranking serves these widths alone. A
            criterion may then choose them more carefully.
        rule: how residual streams are ranked, and whether the least or the most important channels go.
            Its `ranking` needs a plan: see `make_plan`.
        groups: the groups to rank, by default all that are not frozen.

    Returns:
        {group name: float64 [width]}. Channels of higher importance are kept first.

    Raises:
        PlanError: the criterion is unknown, does not suit the rule or lacks the data that it needs, an
            importance is not finite or has another width than its group, or the seed is negative.
        DataError: the data has no batches of (inputs, targets) that model and loss accept.
    """
    name, spec = _named(criterion)
    if data is None and spec.needs != "weights" and (spec.needs != "moments" or moments is None):
        loss_too = ", loss=loss" if spec.needs == "gradients" else ""
        raise PlanError(f'criterion "{name}": needs images. Give make_plan(..., data=loader{loss_too}).')
    rule = rule or Rule()
    groups = tuple(g for g in (prunable.groups if groups is None else groups) if g.frozen is None)
    check_rule(criterion, rule)
    if rule.residual == "shortcut":
        groups = tuple(ranked_by_shortcut(prunable, groups))
    if seed < 0:
        raise PlanError(f"seed: got {seed}, expected 0 or more.")
    with undisturbed(prunable.model, seed), torch.no_grad():
        traced = prunable if isinstance(prunable, Prunable) else None
        given = CriterionInput(prunable.model, groups, data, loss, seed, moments, traced, widths)
        with guarding(criterion if isinstance(criterion, str) else "", "criterion"):
            result: object = spec.rank(given)
        if not isinstance(result, Mapping):
            raise PlanError(
                f'criterion "{name}": it gave {a_kind(result)}, expected {{group name: importance}}.'
            )
        sign = 1 if rule.remove == "least" else -1
        return {group.name: sign * _checked(name, group, result.get(group.name)) for group in groups}


def check_rule(criterion: str | Criterion, rule: Rule, where: str = "") -> None:
    """Refuse a rule that a criterion cannot follow.

    Args:
        criterion: a name in CRITERIA, a function, or its "package.module:function".
        rule: the rule.
        where: the section of the config with its keys, such as "select.", for messages.

    Raises:
        PlanError: the criterion is unknown, or cannot follow the rule.
    """
    name, spec = _named(criterion)
    if rule.residual == "shortcut" and spec.needs != "weights":
        raise PlanError(
            f'{where}residual = "shortcut": criterion "{name}" reads more than the weights of one layer. '
            f"Choose one of {quoted(row for row, each in CRITERIA.items() if each.needs == 'weights')}."
        )
    if rule.ranking == "greedy" and spec.by_layers is not None and rule.remove == "most":
        raise PlanError(
            f'{where}ranking = "greedy": criterion "{name}" chooses the channels of each group itself. Leave '
            'out remove = "most", or set ranking = "independent".'
        )


def _named(criterion: str | Criterion) -> tuple[str, CriterionSpec]:
    """Return a criterion's name for messages, and its spec."""
    if isinstance(criterion, str):
        return criterion, find_criterion(criterion, PlanError)
    return getattr(criterion, "__name__", "(yours)"), CriterionSpec(criterion)


def _checked(name: str, group: ChannelGroup, values: Any) -> NDArray[np.float64]:
    """Return a group's importance as float64 [width], whatever kind of array the criterion gave."""
    if values is None or np.shape(values) != (group.width,):
        raise PlanError(
            f'criterion "{name}": group "{group.name}" needs an importance of shape ({group.width},), '
            f"got {'none' if values is None else np.shape(values)}."
        )
    array = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values, dtype=np.float64)
    if not np.isfinite(array).all():
        raise PlanError(
            f'criterion "{name}": the importance of group "{group.name}" is not finite. The weights '
            "or the data hold NaN or infinity."
        )
    return array


@entry(
    PlanError,
    prunable=TracedModel,
    criterion=(str, Callable),
    data=(Iterable, NoneType),
    loss=(Callable, NoneType),
    seed=int,
)
def make_plan(
    prunable: TracedModel,
    ratio: float | Mapping[str, int | float],
    criterion: str | Criterion = "l1",
    data: Iterable[Any] | None = None,
    loss: LossFunction | None = None,
    seed: int = 0,
    rule: Rule | None = None,
) -> Plan:
    """Choose the channels to keep at given keep ratios or widths.

    Args:
        prunable: the traced model.
        ratio: a keep ratio in (0, 1] for every group that is not frozen, or {group name: width or ratio}. An
            int is a width (1 is one channel), and a float is a ratio (1.0 is all). Groups that are missing
            keep all channels. A block of `prunable.blocks` is dropped by the width 0.
        criterion: a name in `autoprune.criteria.CRITERIA`, a function, or its "package.module:function".
        data: batches (inputs, targets), for criteria that run the model. Most of them read no targets.
        loss: (outputs in eval mode, targets) -> scalar, for criteria that read gradients. The default is
            cross-entropy.
        seed: of every draw.
        rule: how importances decide which channels stay, by default those of least importance go, each group
            ranked in the dense model. A greedy ranking reads the data once for each group.

    Returns:
        The plan: a mapping {group name: sorted int64 keep index} of the groups that are narrowed.

    Raises:
        PlanError: a group, width, ratio or criterion does not fit the model, or data is missing.
        DataError: the data has no batches of (inputs, targets).

    Example:
        plan = autoprune.make_plan(prunable, 0.5, criterion="l1")
        plan.widths
    """
    widths = resolve_widths(prunable, ratio)
    return choose_channels(prunable, widths, criterion, data, loss, seed, rule=rule)


def choose_channels(
    prunable: TracedModel,
    widths: Mapping[str, int],
    criterion: str | Criterion = "l1",
    data: Iterable[Any] | None = None,
    loss: LossFunction | None = None,
    seed: int = 0,
    moments: Callable[[], Moments] | None = None,
    rule: Rule | None = None,
    done: Callable[[int, int], None] = nothing_done,
) -> Plan:
    """Choose the channels to keep at given widths. The arguments are those of `importance`.

    A greedy ranking calls `done` with (groups done, all groups).

    Raises:
        PlanError: as `importance`, or a width does not fit the model.
        DataError: the data has no batches of (inputs, targets) that model and loss accept.
    """
    channels, dropped = split_blocks(prunable, widths)
    plan = _choose(prunable, channels, criterion, data, loss, seed, moments, rule or Rule(), done)
    return Plan({**plan, **dropped}, plan.ranking)


def _choose(
    prunable: TracedModel,
    widths: Mapping[str, int],
    criterion: str | Criterion,
    data: Iterable[Any] | None,
    loss: LossFunction | None,
    seed: int,
    moments: Callable[[], Moments] | None,
    rule: Rule,
    done: Callable[[int, int], None],
) -> Plan:
    _, spec = _named(criterion)

    def rank(model: TracedModel, groups: Sequence[ChannelGroup] | None = None) -> Importance:
        # The moments are those of the dense model. A greedy ranking measures the model as pruned so far.
        known = moments if rule.ranking == "independent" else None
        return importance(model, criterion, data, loss, seed, known, widths, rule, groups)

    check_rule(criterion, rule)
    if rule.ranking == "independent":
        return plan_from_importance(prunable, widths, rank(prunable))
    if spec.by_layers is None:
        return greedy_plan(prunable, widths, rank, done)
    traced = prunable if isinstance(prunable, Prunable) else None
    return spec.by_layers(
        CriterionInput(
            prunable.model, prunable.groups, data, loss, seed, prunable=traced, widths=widths, done=done
        )
    )
