"""Check the starts of slices: a narrowed slice must start right behind the channels that are kept before it.

A comparison of shapes is not enough. `x[:, 2:4]` has the right shape wherever it starts.

    misplaced_slice("slice", dense_node, narrowed_node, source, kept)    # the labels at fault, or None
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from autoprune.graph.context import Value
from autoprune.graph.labels import LabelVector

_STARTS = {"slice": 2, "select": 2, "narrow": 2}
"""{operator that picks consecutive positions: the position of the start among its arguments}."""

Kept = Callable[[LabelVector], NDArray[np.bool_]]
"""Labels of an axis -> bool mask of the positions kept."""


def misplaced_slice(
    operator: str, dense: Node, narrowed: Node, source: Value, kept: Kept
) -> LabelVector | None:
    """Return the labels to freeze if a narrowed slice starts at another channel than the dense one, or None.

    Args:
        operator: the operator's name.
        dense: the node in the dense graph.
        narrowed: the same node in the narrowed graph.
        source: the labelled tensor that is sliced.
        kept: maps labels to a bool mask of the positions kept.
    """
    if operator not in _STARTS:
        return None
    axis = _integer(dense, 1, "dim") % len(source.shape)
    vector = source.labels[axis]
    if vector is None:
        return None
    start = _start(operator, dense, axis)
    expected = int(kept(vector[:start]).sum())
    if _start(operator, narrowed, axis) == expected:
        return None
    return vector[:start] if expected < start else vector


def _start(operator: str, node: Node, axis: int) -> int:
    start = _integer(node, _STARTS[operator], "index" if operator == "select" else "start")
    size = _size(node.args[0], axis)
    return min(start + size if start < 0 else start, size)


def _integer(node: Node, place: int, name: str) -> int:
    value = node.args[place] if len(node.args) > place else node.kwargs.get(name)
    return value if isinstance(value, int) else 0


def _size(source: object, axis: int) -> int:
    value = source.meta.get("val") if isinstance(source, Node) else None
    if not isinstance(value, Tensor):
        raise TypeError(f"{source}: expected a tensor to slice")
    return int(value.shape[axis])
