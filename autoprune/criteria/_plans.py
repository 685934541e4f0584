"""Makes plans from importances: the most important channels of each group stay.

Searches compute the importance once and cut many plans from it:

    ranked = importance(prunable, "l1")
    plan = plan_from_importance(prunable, {"layer1.0.conv1": 8}, ranked)      # keep index: sorted int64 [8]
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from autoprune.criteria._base import TracedModel
from autoprune.errors import PlanError, shown_value, suggest
from autoprune.graph import Block, Prunable
from autoprune.graph.groups import ChannelGroup
from autoprune.graph.plan import Plan


def plan_from_importance(
    prunable: TracedModel, widths: Mapping[str, int], importance: Mapping[str, NDArray[np.float64]]
) -> Plan:
    """Keep the most important channels of each group. Of equal channels, those with the lower index are kept.

    Args:
        prunable: the traced model.
        widths: {group name: channels to keep}. Groups that are missing or at full width keep all channels,
            and the plan does not name them. A block of width 0 is dropped.
        importance: {group name: float64 [width]} of at least the groups that are narrowed.

    Raises:
        PlanError: a group is unknown, a width is out of range, a frozen group would be narrowed, or an
            importance is missing.
    """
    widths, keep = split_blocks(prunable, widths)
    ranking: dict[str, NDArray[np.int64]] = {}
    for name, width in widths.items():
        group = _group(prunable, name)
        _check_width(group, width)
        if width == group.width:
            continue
        values = importance.get(name)
        if values is None or np.shape(values) != (group.width,):
            got = "none" if values is None else f"shape {np.shape(values)}"
            raise PlanError(
                f'Group "{name}": {group.width} channels need an importance of shape ({group.width},), '
                f"got {got}. Compute it with autoprune.criteria.importance on the same model."
            )
        ranking[name] = np.argsort(-np.asarray(values), kind="stable").astype(np.int64)
        keep[name] = ranking[name][:width]
    return Plan(keep, ranking)


def mixed(
    ranking: Mapping[str, NDArray[np.float64]],
    others: Mapping[str, Mapping[str, NDArray[np.float64]]],
    criteria: Mapping[str, str],
) -> dict[str, NDArray[np.float64]]:
    """Return the importance of each group by the criterion that a candidate chooses for it.

    Args:
        ranking: {group name: importance} by the first criterion.
        others: {criterion: such a ranking} of the other criteria.
        criteria: {group name: criterion}. Groups that are missing are ranked by the first.
    """
    return {name: others.get(criteria.get(name, ""), ranking)[name] for name in ranking}


def split_blocks(
    prunable: TracedModel, widths: Mapping[str, int]
) -> tuple[dict[str, int], dict[str, NDArray[np.int64]]]:
    """Return the widths of channel groups alone, and {block: empty keep index} of the dropped blocks.

    Groups that live inside dropped blocks alone are left out of the widths.
    """
    blocks = _blocks(prunable)
    dropped = [name for name, width in widths.items() if name in blocks and width == 0]
    gone = {group for name in dropped for group in blocks[name].groups}
    channels = {name: width for name, width in widths.items() if name not in blocks and name not in gone}
    return channels, {name: np.empty(0, np.int64) for name in dropped}


def resolve_widths(prunable: TracedModel, ratio: float | Mapping[str, int | float]) -> dict[str, int]:
    """Turn a keep ratio for all groups that are not frozen, or a width or ratio a group, into widths.

    Args:
        prunable: the traced model.
        ratio: a keep ratio in (0, 1], or {group name: width (an int) or keep ratio (a float)}. So 1 is one
            channel, and 1.0 is all. Ratios round to the nearest width that is at least 1. A block has the
            width 0 or 1.

    Raises:
        PlanError: a group is unknown, a ratio is outside (0, 1], a width is out of range, or a frozen group
            would be narrowed.
    """
    if isinstance(ratio, Mapping):
        blocks = _blocks(prunable)
        return {
            name: _block_width(name, value) if name in blocks else _width(_group(prunable, name), value)
            for name, value in ratio.items()
        }
    if isinstance(ratio, numbers.Integral) or not isinstance(ratio, numbers.Real):
        raise PlanError(
            f"Keep ratio: got {shown_value(ratio)}, expected a float in (0, 1] (1.0 keeps all), or a mapping "
            "{group name: width or ratio}."
        )
    return {group.name: _width(group, float(ratio)) for group in prunable.groups if group.frozen is None}


def _blocks(prunable: TracedModel) -> dict[str, Block]:
    """Return {name: block}, of a model whose graph is known."""
    return prunable.block_of if isinstance(prunable, Prunable) else {}


def _block_width(name: str, value: object) -> int:
    if value not in (0, 1) or isinstance(value, float):
        raise PlanError(f'Block "{name}": got {shown_value(value)}, expected 0 to drop it, or 1 to keep it.')
    return int(bool(value))


def _width(group: ChannelGroup, value: object) -> int:
    """Resolve one group's width or ratio."""
    if isinstance(value, numbers.Integral) and not isinstance(value, bool):
        width = int(value)
    elif isinstance(value, numbers.Real) and not isinstance(value, bool):
        ratio = float(value)
        if not 0 < ratio <= 1:
            raise PlanError(
                f'Group "{group.name}": got the keep ratio {value}, expected one in (0, 1]. A width is '
                f"an int in [1, {group.width}]."
            )
        width = max(1, math.floor(ratio * group.width + 0.5))
    else:
        raise PlanError(
            f'Group "{group.name}": got {shown_value(value)}, expected a width (int) or a keep ratio (float '
            "in (0, 1])."
        )
    _check_width(group, width)
    return width


def _group(prunable: TracedModel, name: str) -> ChannelGroup:
    known = {group.name: group for group in prunable.groups}
    if name not in known:
        names = [*known, *_blocks(prunable)]
        raise PlanError(
            f'Group "{name}": the model has no such group.{suggest(str(name), names)} See prunable.groups '
            "for all."
        )
    return known[name]


def _check_width(group: ChannelGroup, width: int) -> None:
    if not 1 <= width <= group.width:
        raise PlanError(f'Group "{group.name}": got width {width}, expected one in [1, {group.width}].')
    if group.frozen is not None and width != group.width:
        raise PlanError(
            f'Group "{group.name}": got width {width} of {group.width}, but it is frozen ({group.frozen}). '
            "Leave it out."
        )
