"""Find the channel groups of a model: capture its graph, propagate labels by layer rules, group the channels.

`autoprune.tracing.trace` runs these steps, checks the shapes and adds the cost formula. Read the modules in
the order of the steps: `capture`, `labels`, `context`, `propagate` (with `rules`), `grouping`, `prunable`.
"""

from autoprune.graph.blocks import Block
from autoprune.graph.groups import ChannelGroup, Member
from autoprune.graph.plan import Plan
from autoprune.graph.prunable import Cost, CostFormula, Prunable

__all__ = ["Block", "ChannelGroup", "Cost", "CostFormula", "Member", "Plan", "Prunable"]
