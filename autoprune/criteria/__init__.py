"""Criteria: how much each channel matters, and the plans that follow.

One file holds a family of criteria; a new one is a function and a row in CRITERIA.

    plan = make_plan(prunable, 0.5, criterion="l1")
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import NoneType
from typing import Any

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
    undisturbed,
)
from autoprune.criteria._plans import plan_from_importance, resolve_widths
from autoprune.criteria.activations import activation, apoz, chip, hrank
from autoprune.criteria.gradients import fisher, taylor
from autoprune.criteria.reconstruction import lasso, obs
from autoprune.criteria.weights import bn, fpgm, l1, l2, lamp, random
from autoprune.errors import PlanError, unknown
from autoprune.graph.groups import ChannelGroup
from autoprune.graph.plan import Plan
from autoprune.graph.prunable import Prunable
from autoprune.reconstruction import Moments
from autoprune.support.usercode import entry

__all__ = [
    "BY_MOMENTS",
    "CRITERIA",
    "Criterion",
    "CriterionInput",
    "Importance",
    "importance",
    "make_plan",
    "plan_from_importance",
    "resolve_widths",
]

CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "lamp": lamp,
    "bn": bn,
    "random": random,
    "fpgm": fpgm,
    "taylor": taylor,
    "fisher": fisher,
    "activation": activation,
    "apoz": apoz,
    "hrank": hrank,
    "chip": chip,
    "lasso": lasso,
    "obs": obs,
}
"""Name -> criterion."""

BY_MOMENTS = ("lasso", "obs")
"""Criteria that read the moments of the layers' inputs."""


def importance(
    prunable: TracedModel,
    criterion: str | Criterion = "l1",
    data: Iterable[Any] | None = None,
    loss: LossFunction | None = None,
    seed: int = 0,
    moments: Callable[[], Moments] | None = None,
    widths: Mapping[str, int] | None = None,
) -> Importance:
    """Rank the channels of every group that is not frozen; the dense model is left as it is.

    Args:
        prunable: the traced model.
        criterion: a name in CRITERIA, or a function of the user's.
        data: batches (inputs, targets), for criteria that run the model; most of them read no targets.
        loss: (outputs in eval mode, targets) -> scalar, for criteria that read gradients ("taylor",
            "fisher"); cross-entropy by default.
        seed: of every draw.
        moments: returns the moments of the layers' inputs, for criteria that read them ("obs", "lasso");
            without it they measure `data`.
        widths: {group name: channels that will be kept}, if the ranking serves these widths alone; "obs" then
            chooses them more carefully.

    Returns:
        {group name: float64 [width]}; channels of higher importance are kept first.

    Raises:
        PlanError: an unknown criterion, one without the data it needs, an importance that is not finite or
            has not the group's width, or a negative seed.
        DataError: data without batches of (inputs, targets) that model and loss take.
    """
    name = criterion if isinstance(criterion, str) else getattr(criterion, "__name__", "(yours)")
    if isinstance(criterion, str):
        if criterion not in CRITERIA:
            raise PlanError(unknown("criterion", criterion, CRITERIA))
        criterion = CRITERIA[criterion]
    groups = tuple(group for group in prunable.groups if group.frozen is None)
    if seed < 0:
        raise PlanError(f"seed: got {seed}, expected 0 or more.")
    with undisturbed(prunable.model, seed), torch.no_grad():
        traced = prunable if isinstance(prunable, Prunable) else None
        result: object = criterion(
            CriterionInput(prunable.model, groups, data, loss, seed, moments, traced, widths)
        )
        if not isinstance(result, Mapping):
            raise PlanError(
                f'criterion "{name}": it gave a {type(result).__name__}, expected {{group name: importance}}.'
            )
        return {group.name: _checked(name, group, result.get(group.name)) for group in groups}


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
            f'criterion "{name}": the importance of group "{group.name}" is not finite; the weights '
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
) -> Plan:
    """Choose the channels to keep at given keep ratios or widths.

    Args:
        prunable: the traced model.
        ratio: a keep ratio in (0, 1] for every group that is not frozen, or {group name: width or ratio}; an
            int is a width (1 is one channel), a float a ratio (1.0 is all). Groups left out stay whole.
        criterion: a name in `autoprune.criteria.CRITERIA`, or a function.
        data: batches (inputs, targets), for criteria that run the model; most of them read no targets.
        loss: (outputs in eval mode, targets) -> scalar, for criteria that read gradients ("taylor",
            "fisher"); cross-entropy by default.
        seed: of every draw.

    Returns:
        The plan: a mapping {group name: sorted int64 keep index} of the groups that are narrowed.

    Raises:
        PlanError: a group, width, ratio or criterion that does not fit, or data that is missing.
        DataError: data without batches of (inputs, targets).
    """
    widths = resolve_widths(prunable, ratio)
    ranked = importance(prunable, criterion, data, loss, seed, widths=widths)
    return plan_from_importance(prunable, widths, ranked)
