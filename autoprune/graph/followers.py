"""Followers: numbers in a user's own modules that must follow the width of an axis.

PATCH_RULES knows the numbers of torch's modules. A hand-written attention keeps its head width in an
attribute of its own, and other modules keep the sizes of a split in a list. Tracing finds such numbers and
checks them on shapes. `rebuild` sets them together with the numbers of PATCH_RULES.

    Follower("blocks.0.attn", "head_dim", labels)        # head_dim becomes the number of positions kept
    Follower("blocks.0", "splits", labels, item=1)       # splits[1] does
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
        attribute: name of the attribute, which is an integer, or a list or tuple of integers.
        labels: int64 [size], the labels of the axis whose size the number gives.
        item: position of the number in a list or tuple, or None for an integer.
    """

    module: str
    attribute: str
    labels: LabelVector
    item: int | None = None


def followed(
    model: nn.Module, followers: Iterable[Follower], size: Callable[[LabelVector], int]
) -> Iterator[Patch]:
    """Iterate over the new value of each followed attribute. `size` maps an axis' labels to its new size."""
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
