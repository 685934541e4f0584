"""The search space: keep ratios that samplers propose, and the widths within the budget that they stand for.

spec = load_spec("search_spaces/resnet20.toml")
space = build_space(prunable.groups, prunable.cost, Budget(macs=20_000_000), spec)
"""

from __future__ import annotations

from autoprune.space._allocation import cut, drop_gates, ranking_gates, uniform_gates
from autoprune.space._budget import WINDOW_LOW, Budget, RequestedLimit
from autoprune.space._choices import ChoiceSpace
from autoprune.space._depth import DepthSpace, build_depth_space
from autoprune.space._knapsack import channel_values, error_values, knapsack
from autoprune.space._ladder import CostFunction, Ladder
from autoprune.space._levels import Levels, widths_at
from autoprune.space._search_space import Candidate, Reach, SearchSpace, Variable, build_space
from autoprune.space._shares import SHARE, ShareSpace
from autoprune.space._spec import Override, SpaceSpec, Tie, load_spec, matches, tie_stages

__all__ = [
    "SHARE",
    "WINDOW_LOW",
    "Budget",
    "Candidate",
    "ChoiceSpace",
    "CostFunction",
    "DepthSpace",
    "Ladder",
    "Levels",
    "Override",
    "Reach",
    "RequestedLimit",
    "SearchSpace",
    "ShareSpace",
    "SpaceSpec",
    "Tie",
    "Variable",
    "build_depth_space",
    "build_space",
    "channel_values",
    "cut",
    "drop_gates",
    "error_values",
    "knapsack",
    "load_spec",
    "matches",
    "ranking_gates",
    "tie_stages",
    "uniform_gates",
    "widths_at",
]
