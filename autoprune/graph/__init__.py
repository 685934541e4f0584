"""From a model to channel groups: capture, layer rules, label propagation, grouping.

`autoprune.tracing.trace` joins these with the cost formula and the check of shapes.
"""

from autoprune.graph.groups import ChannelGroup, Member
from autoprune.graph.plan import Plan
from autoprune.graph.prunable import Cost, CostFormula, Prunable

__all__ = ["ChannelGroup", "Cost", "CostFormula", "Member", "Plan", "Prunable"]
