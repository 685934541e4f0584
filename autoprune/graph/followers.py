"""Own the follower: a number on a module that no table names and that must follow the width of an axis.

An attention written by hand keeps its head width in an attribute of its own. `repairs` finds such numbers,
the probe proves them, and `rebuild` sets them beside the numbers of PATCH_RULES.

    Follower("blocks.0.attn", "head_dim", labels)   # head_dim is how many of these positions are kept
"""

from __future__ import annotations

from dataclasses import dataclass

from autoprune.graph.labels import LabelVector


@dataclass(frozen=True, eq=False)
class Follower:
    """One number of one module.

    Attributes:
        module: path of the module, "" for the model itself.
        attribute: the integer attribute that is set.
        labels: int64 [number], the labels of the axis whose size the number is.
    """

    module: str
    attribute: str
    labels: LabelVector
