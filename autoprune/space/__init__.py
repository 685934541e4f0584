"""The search space: keep ratios that samplers propose, and the widths within the budget that they stand for.

Before: `graph` finds the groups and their cost; after: samplers and studies speak in the space's variables.

    spec = load_spec("search_spaces/resnet20.toml")
    space = build_space(prunable.groups, prunable.cost, Budget(macs=20_000_000), spec)
"""

from __future__ import annotations

from autoprune.space.budget import Asked, Budget
from autoprune.space.search_space import Reach, SearchSpace, Variable, build_space
from autoprune.space.shares import SHARE, ShareSpace
from autoprune.space.spec import Override, SpaceSpec, Tie, load_spec

__all__ = [
    "SHARE",
    "Asked",
    "Budget",
    "Override",
    "Reach",
    "SearchSpace",
    "ShareSpace",
    "SpaceSpec",
    "Tie",
    "Variable",
    "build_space",
    "load_spec",
]
