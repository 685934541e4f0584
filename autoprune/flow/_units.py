"""The groups that each pass narrows, if passes go through the model layer by layer.

Example:
    units(prunable, "stage", {"conv1": 8, "conv2": 8})       # (("conv1", "conv2"),) if both have one map size
"""

from __future__ import annotations

from collections.abc import Mapping

from autoprune.graph import Prunable
from autoprune.graph.writers import map_stages, writers


def units(prunable: Prunable, narrow: str, widths: Mapping[str, int]) -> tuple[tuple[str, ...], ...]:
    """Return the groups that each pass narrows, in the order of execution.

    Args:
        prunable: the traced model before the first pass.
        narrow: "group" or "stage", as flow.narrow.
        widths: {group name: width after the last pass}.
    """
    full = {group.name: group.width for group in prunable.groups}
    cut = {name for name, width in widths.items() if width < full.get(name, 1)}  # 1 is that of a block
    families = map_stages(prunable).values() if narrow == "stage" else [(name,) for name in writers(prunable)]
    found = [tuple(name for name in family if name in cut) for family in families]
    # A dropped block, and a group that no convolution or linear layer writes, belong to no stage.
    rest = [(name,) for name in cut.difference(*found)]
    return tuple(names for names in (*found, *sorted(rest)) if names)
