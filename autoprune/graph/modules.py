"""Ties between the parameters of one module that its operators do not show.

`trace` applies them before it propagates labels. To add a module, write one function and one row:

    MODULE_TIES[MyAttention] = tie_my_attention
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import nn

from autoprune.graph.capture import first_names
from autoprune.graph.labels import LabelStore, LabelVector
from autoprune.graph.propagate import ParameterAxes

AxisLabels = Callable[[str, int], LabelVector | None]
"""(local parameter name, axis) -> the labels of that axis."""


def tie_modules(model: nn.Module, axes: ParameterAxes, store: LabelStore) -> None:
    """Apply the rows of MODULE_TIES to every module of their classes."""
    names = first_names(model)
    for path, module in model.named_modules():
        for cls, tie in MODULE_TIES.items():
            if isinstance(module, cls):
                tie(module, _axis_labels(path, names, axes), store, path)


def _axis_labels(path: str, names: dict[str, str], axes: ParameterAxes) -> AxisLabels:
    def labels_of(name: str, axis: int) -> LabelVector | None:
        full = names.get(f"{path}.{name}" if path else name)
        return None if full is None else axes.labels[full][axis]

    return labels_of


def tie_multihead_attention(module: nn.Module, labels_of: AxisLabels, store: LabelStore, path: str) -> None:
    """Tie the inner width to the embedding, because the module stores one number for both.

    The module computes its head width as embedding / heads, so position i of all heads is one channel.
    """
    if not isinstance(module, nn.MultiheadAttention):
        raise TypeError(f"{path}: {type(module).__name__} is no MultiheadAttention")
    embedding = labels_of("out_proj.weight", 0)
    if embedding is None:
        return
    reason = f"{path} (MultiheadAttention): meets a fixed axis"
    heads = embedding.reshape(module.num_heads, -1)
    first = np.tile(heads[0], module.num_heads)
    store.tie(embedding, first, reason)
    store.tie(labels_of("out_proj.weight", 1), first, reason)
    if module.in_proj_weight is not None:
        store.tie(labels_of("in_proj_weight", 0), np.tile(first, 3), reason)
        store.tie(labels_of("in_proj_weight", 1), first, reason)
        return
    for name in ("q_proj_weight", "k_proj_weight", "v_proj_weight"):
        store.tie(labels_of(name, 0), first, reason)
    store.tie(labels_of("q_proj_weight", 1), first, reason)


MODULE_TIES: dict[type[nn.Module], Callable[[nn.Module, AxisLabels, LabelStore, str], None]] = {
    nn.MultiheadAttention: tie_multihead_attention,
}
