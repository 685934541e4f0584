"""Layers that can be pruned in ways that torch's own layers cannot, and functions that put them into a model.

Example:
    selecting = add_channel_selection(preresnet, torch.zeros(1, 3, 32, 32))
    versatile = to_versatile(resnet)

They consist of torch's operators, so tracing, rebuilding and exporting have no rules of their own for them.
"""

from autoprune.graph.orientation import WITH_KERNELS
from autoprune.nn._conversion import to_versatile
from autoprune.nn._insertion import add_channel_selection
from autoprune.nn._selection import ChannelSelection
from autoprune.nn._versatile import VersatileConv2d

__all__ = [
    "ChannelSelection",
    "VersatileConv2d",
    "add_channel_selection",
    "to_versatile",
]

WITH_KERNELS.append(VersatileConv2d)
