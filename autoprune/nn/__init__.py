"""Layers that can be pruned in ways that torch's own layers cannot.

    block = nn.Sequential(ChannelSelection(64), nn.BatchNorm2d(64), nn.ReLU(), nn.Conv2d(64, 16, 3))

They consist of torch's operators, so tracing, rebuilding and exporting need no rows for them.
"""

from autoprune.nn._insertion import add_channel_selection
from autoprune.nn._selection import ChannelSelection

__all__ = [
    "ChannelSelection",
    "add_channel_selection",
]
