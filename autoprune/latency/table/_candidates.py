"""Build models of given widths to time them. Their latency does not depend on which channels are kept.

Example:
    model = narrowed(prunable, np.array([16, 8, 10]))      # int64 [groups]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild


def narrowed(prunable: Prunable, widths: NDArray[np.int64]) -> nn.Module:
    """Build the model with the widths [groups], which keeps the first channels of each group.

    Raises:
        PlanError: a width is out of range, or a frozen group is narrowed.
    """
    keep = {
        group.name: np.arange(width)
        for group, width in zip(prunable.groups, widths.tolist(), strict=True)
        if width != group.width
    }
    return prunable.part_of(rebuild(prunable, Plan(keep)))
