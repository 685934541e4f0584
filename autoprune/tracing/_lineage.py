"""The groups that a smaller model inherits from the model from which a plan cut it.

Example:
    lineage = lineage_of(prunable, plan, rebuild(prunable, plan))
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from torch import nn

from autoprune.graph import Plan, Prunable
from autoprune.graph.capture import named_tensors
from autoprune.graph.lineage import Lineage


def lineage_of(prunable: Prunable, plan: Plan, small: nn.Module) -> Lineage:
    """Return the groups that a plan leaves, with positions of the smaller model.

    Args:
        prunable: the traced model.
        plan: the channels and blocks that were kept.
        small: the model that was rebuilt.

    Raises:
        PlanError: the plan does not fit the model's groups.
    """
    prunable.check(plan)
    kept = prunable.of_groups(plan)
    places = prunable.positions.kept(kept)
    tensors = {name for name, _ in named_tensors(small)}
    groups = []
    for group in prunable.groups:
        index = kept.get(group.name, np.arange(group.width))
        members = []
        for member in group.members:
            if member.parameter in tensors:  # it is not in a dropped block
                rows, left = member.index[index], places.get(member.parameter, {}).get(member.axis)
                members.append(replace(member, index=rows if left is None else np.searchsorted(left, rows)))
        if members:
            groups.append(replace(group, width=len(index), members=tuple(members)))
    return Lineage(tuple(groups))
