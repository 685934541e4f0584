"""Own the follower: a number on a module that no table names and that must follow the width of an axis.

An attention written by hand keeps its head width in an attribute of its own; others keep the sizes of a split
in a list. `module_numbers` finds such numbers, the probe proves them, and `rebuild` sets them beside the
numbers of PATCH_RULES.

    Follower("blocks.0.attn", "head_dim", labels)        # head_dim is how many of these positions are kept
    Follower("blocks.0", "splits", labels, item=1)       # so is splits[1]
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from autoprune.graph.labels import LabelVector
from autoprune.graph.patches import Patch


@dataclass(frozen=True, eq=False)
class Follower:
    """One number of one module.

    Attributes:
        module: path of the module, "" for the model itself.
        attribute: the attribute that is set: an integer, or a list or tuple of integers.
        labels: int64 [size], the labels of the axis whose size the number is.
        item: which number of a list or tuple; None for an integer.
    """

    module: str
    attribute: str
    labels: LabelVector
    item: int | None = None


def followed(
    model: nn.Module, followers: Iterable[Follower], size: Callable[[LabelVector], int]
) -> Iterator[Patch]:
    """Iterate over what attributes of `model` become where axes have the sizes that `size(labels)` tells."""
    values: dict[tuple[str, str], int | list[int]] = {}
    for each in followers:
        place, number = (each.module, each.attribute), size(each.labels)
        if each.item is None:
            values[place] = number
            continue
        dense = getattr(model.get_submodule(each.module), each.attribute)
        listed = values.setdefault(place, list(dense))
        assert isinstance(listed, list)
        listed[each.item] = number
    for (module, attribute), value in values.items():
        yield Patch(module, attribute, value)
