"""One threshold over the scales of all groups, which gives a plan.

Example:
    plan = threshold_plan(prunable, share=0.4, floor=1)
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from types import NoneType

import numpy as np
from numpy.typing import NDArray

from autoprune.criteria import Importance, channel_scales
from autoprune.errors import BudgetError, PlanError
from autoprune.graph import Cost, Plan, Prunable
from autoprune.space import Budget, CostFunction
from autoprune.support.usercode import entry


@entry(PlanError, prunable=Prunable, share=(int, float, NoneType), threshold=(int, float, NoneType))
def threshold_plan(
    prunable: Prunable,
    share: float | None = None,
    threshold: float | None = None,
    *,
    floor: int | float | None = None,
    importance: Mapping[str, NDArray[np.float64]] | None = None,
) -> Plan:
    """Cut the channels with the smallest scales, compared over all groups.

    Args:
        prunable: the traced model, with the trained weights. Groups without a BatchNorm stay whole.
        share: share of the channels to cut, in [0, 1). Of equal scales the higher index goes first, and the
            later group. Or
        threshold: channels with this scale or a smaller one go (exactly one of the two is given).
        floor: channels that each group keeps at least, or a float in (0, 1], the share of its width. Channels
            that a floor keeps are replaced by the next larger ones of other groups, so that `share` is met.
        importance: {group name: float64 [width]}, scales of another kind for the groups to be compared.

    Returns:
        The plan, with the groups that lose a channel.

    Raises:
        PlanError: the threshold would empty a group, the share cannot be met above the floor, there is no
            BatchNorm, or an argument is out of its range.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017,
    section 3.
    """
    if (share is None) == (threshold is None):
        raise PlanError(f"threshold_plan: got share={share} and threshold={threshold}. Give one of the two.")
    if threshold is not None and math.isnan(threshold):
        raise PlanError("threshold: got nan, expected a scale.")
    ranked = _ranked(prunable, importance)
    least = {name: _floor(floor, len(scales)) for name, scales in ranked.items()}
    protected = {name: _largest(scales, least[name]) for name, scales in ranked.items()}
    scales = np.concatenate(list(ranked.values()))
    free = ~np.concatenate(list(protected.values()))
    cut = np.zeros(len(scales), bool)
    if share is not None:
        cut[_smallest(scales, free, share)] = True
    else:
        cut = free & (scales <= threshold)
    reached = threshold if threshold is not None else scales[cut].max(initial=0)
    keep, start = {}, 0
    for name, values in ranked.items():
        kept = np.flatnonzero(~cut[start : start + len(values)])
        start += len(values)
        if len(kept) == 0:
            raise PlanError(
                f"{name}: the threshold {reached:.3g} would cut all {len(values)} channels (the "
                f"largest scale is {values.max():.3g}). Give a floor, such as floor=1, or cut less."
            )
        if len(kept) < len(values):
            keep[name] = kept
    return Plan(keep)


@entry(PlanError, prunable=Prunable, macs=int)
def threshold_plan_within(
    prunable: Prunable,
    budget: Budget,
    *,
    cost: CostFunction | None = None,
    floor: int | float | None = 1,
    importance: Mapping[str, NDArray[np.float64]] | None = None,
) -> Plan:
    """Cut the channels with the smallest scales, as few as meet a budget.

    Args:
        prunable: the traced model, with the trained weights.
        budget: limits on any costs that never fall as a width grows.
        cost: computes these costs from widths. The default computes MACs and parameters.
        floor: see `threshold_plan`.
        importance: see `threshold_plan`.

    Raises:
        PlanError: as `threshold_plan`.
        BudgetError: no share above the floor meets the budget. The message names the smallest cost.
    """
    ranked = _ranked(prunable, importance)
    total = sum(map(len, ranked.values()))
    most = total - sum(max(1, _floor(floor, len(scales))) for scales in ranked.values())

    def cut(count: int) -> Plan:
        return threshold_plan(prunable, count / total, floor=floor, importance=ranked)

    def costs(count: int) -> Cost:
        widths = cut(count).widths
        row = [[widths.get(group.name, group.width) for group in prunable.groups]]
        return (cost or prunable.cost)(np.array(row, dtype=np.int64))

    def fits(count: int) -> bool:
        return bool(budget.usage(costs(count))[0] <= 1)

    if not fits(most):
        smallest = costs(most).one().known()
        name = max(budget.limits, key=lambda name: float(smallest[name]) / budget.limits[name])
        words = budget.out_of_reach(name, float(smallest[name]))
        raise BudgetError(f"{words}, or lower the floor.")
    return cut(bisect.bisect_left(range(most + 1), True, key=fits))  # the plans are nested, so MACs only fall


def check_share(share: float, widths: Sequence[int], floor: int | float | None = None) -> None:
    """Check that a floor leaves enough channels for a share, whatever their scales.

    Args:
        share: see `threshold_plan`.
        widths: of the groups to be compared.
        floor: see `threshold_plan`.

    Raises:
        PlanError: it does not, or an argument is out of its range.
    """
    _count(share, sum(widths), sum(width - _floor(floor, width) for width in widths))


def _ranked(prunable: Prunable, importance: Mapping[str, NDArray[np.float64]] | None) -> Importance:
    """Return the scales to be compared, by searchable group."""
    searchable = prunable.searchable
    if importance is None:
        found = channel_scales(prunable.model, searchable)
    else:
        found = {
            each.name: np.asarray(importance[each.name]) for each in searchable if each.name in importance
        }
    if not found:
        raise PlanError(
            f"threshold_plan: no searchable group of {type(prunable.model).__name__} has "
            f"{'a BatchNorm' if importance is None else 'an importance'}. Give the importance of its groups, "
            'such as autoprune.criteria.importance(prunable, "lamp").'
        )
    for name, values in found.items():
        width = prunable.group(name).width
        if values.shape != (width,) or not np.isfinite(values).all():
            raise PlanError(f"{name}: got scales {list(values.shape)}, expected [{width}] finite numbers.")
    return found


def _floor(floor: int | float | None, width: int) -> int:
    if floor is None:
        return 0
    is_ratio = isinstance(floor, float)
    if isinstance(floor, bool) or not (0 < floor <= 1 if is_ratio else floor >= 1):
        raise PlanError(f"floor: got {floor!r}, expected channels (1 or more) or a float in (0, 1].")
    return max(1, math.ceil(floor * width - 1e-9)) if is_ratio else min(int(floor), width)


def _largest(scales: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Mark the largest scales. The first comes first among equals."""
    marked = np.zeros(len(scales), bool)
    marked[np.argsort(-scales, kind="stable")[:count]] = True
    return marked


def _smallest(scales: NDArray[np.float64], free: NDArray[np.bool_], share: float) -> NDArray[np.int64]:
    """Return the positions of the share of all scales that are the smallest of the free ones."""
    count = _count(share, len(scales), int(free.sum()))
    # A stable sort, reversed: of equal scales the last goes first, so the plans of growing shares are nested.
    order = [each for each in np.argsort(-scales, kind="stable")[::-1] if free[each]]
    return np.array(order[:count], dtype=np.int64)


def _count(share: float, total: int, free: int) -> int:
    """Return the number of channels that a share cuts."""
    if not 0 <= share < 1:
        raise PlanError(f"share: got {share}, expected the share of channels to cut, in [0, 1).")
    count = round(share * total)
    if count > free:
        raise PlanError(
            f"share: got {share:g}, but the floor leaves {free} of {total} channels to cut "
            f"({free / total:.1%}). Lower the floor or the share."
        )
    return count
