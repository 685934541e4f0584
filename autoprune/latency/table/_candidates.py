"""Own the step from widths to a model that has them; which channels those are is nothing to a latency.

Before: `design` or a user chooses widths; after: probes time the model.

    model = narrowed(prunable, np.array([16, 8, 10]))      # int64 [groups]
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autoprune.graph import Plan, Prunable
from autoprune.rebuilding import rebuild


def narrowed(prunable: Prunable, widths: NDArray[np.int64]) -> nn.Module:
    """Build the model whose groups have the widths [groups]; it keeps the first channels of each.

    Raises:
        PlanError: a width is out of range, or a frozen group narrowed.
    """
    keep = {
        group.name: np.arange(width)
        for group, width in zip(prunable.groups, widths.tolist(), strict=True)
        if width != group.width
    }
    return rebuild(prunable, Plan(keep))
