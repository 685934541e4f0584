"""Find the weights of a traced model that read fewer channels, and why some of them cannot be refitted.

Example:
    found = read_fewer(prunable, positions)      # {"layer1.0.conv2.weight": {0: ..., 1: ...}}
    why_not(prunable, "lstm.weight_ih_l0")       # "it is read by lstm, which is not a convolution ..."
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from autoprune.graph import Prunable
from autoprune.graph.positions import KeepPositions
from autoprune.graph.propagate import LAYER_OPERATORS, operator_name
from autoprune.graph.rules.products import PRODUCT_RULES
from autoprune.graph.rules.recurrent import RECURRENT_RULES

Axes = Mapping[int, NDArray[np.int64]]
"""{axis: positions kept} of one tensor."""

_OTHERS = {*PRODUCT_RULES, *RECURRENT_RULES, "bilinear"}
"""Operators other than convolutions and linear layers that multiply their input with a weight."""


@dataclass(frozen=True)
class _Use:
    """How a model uses a parameter.

    Attributes:
        operator: name of the operator that multiplies with it, or None if it only shifts or scales, or is
            unused.
        direct: whether the operator reads the parameter itself, not a tensor computed from it.
    """

    operator: str | None = None
    direct: bool = True


@dataclass(frozen=True, eq=False)
class Cut:
    """The kept part of a convolution or linear layer.

    Attributes:
        groups: int64 [groups], the kept groups. All keep the same number of outputs and the same inputs.
        rows: int64 [groups x outputs], the kept outputs, numbered through all dense groups.
        kept: int64 [kept], the kept positions of a patch.
    """

    groups: Tensor
    rows: Tensor
    kept: Tensor

    def to(self, device: torch.device) -> Cut:
        """Return the cut on a device."""
        return Cut(self.groups.to(device), self.rows.to(device), self.kept.to(device))


def cut_of(shape: torch.Size, axes: Axes, groups: int, *, transposed: bool) -> Cut:
    """Return the kept part of a dense weight.

    Args:
        shape: shape of the weight.
        axes: the kept positions, without axes that stay whole.
        groups: groups of the dense layer.
        transposed: whether the layer is a transposed convolution.
    """
    kept = {axis: torch.from_numpy(positions) for axis, positions in axes.items()}
    if transposed:
        # The weight is [inputs of all groups, outputs of one group, ...]. All groups that are left keep the
        # same inputs within the group, so those of the first stand for all.
        inputs = shape[0] // groups
        channels = kept.get(0, torch.arange(shape[0]))
        alive = torch.unique(channels // inputs)
        channels = channels[channels // inputs == alive[0]] % inputs
        rows = (alive[:, None] * shape[1] + kept.get(1, torch.arange(shape[1]))).flatten()
    else:
        rows = kept.get(0, torch.arange(shape[0]))
        alive = torch.unique(rows // (shape[0] // groups))
        channels = kept.get(1, torch.arange(shape[1]))
    kernel = math.prod(shape[2:])
    return Cut(alive, rows, (channels[:, None] * kernel + torch.arange(kernel)).flatten())


def read_fewer(prunable: Prunable, kept: KeepPositions) -> dict[str, Axes]:
    """Return {weight: its kept positions} of the weights that read fewer channels."""
    return {name: axes for name, axes in kept.items() if _reads(prunable, name, axes)}


def why_not(prunable: Prunable, name: str) -> str | None:
    """Return why a weight cannot be refitted, or None if it is that of a convolution or linear layer."""
    use = _uses(prunable).get(name)
    if use is None:
        return "the model does not use it in eval mode"
    if not use.direct:
        return "the layer's weight is computed from it"
    if use.operator not in LAYER_OPERATORS:
        return f"it is read by {use.operator}, which is not a convolution or linear layer"
    return None


def _reads(prunable: Prunable, name: str, axes: Axes) -> bool:
    shape = prunable.shapes[name]
    use = _uses(prunable).get(name)
    if len(shape) < 2 or (use is not None and use.operator is None):
        return False
    if use is not None and use.operator not in LAYER_OPERATORS:
        return True
    transposed = use is not None and use.operator is not None and "transpose" in use.operator
    return (0 if transposed else 1) in axes


@lru_cache(maxsize=8)
def _uses(prunable: Prunable) -> dict[str, _Use]:
    """Return how the graph in eval mode uses each parameter or buffer that it reads."""
    states = prunable.captured.states
    # The states that a node is computed from, or None if an input of the model is among its sources.
    behind: dict[Node, frozenset[str] | None] = {}
    found: dict[str, _Use] = {}
    for node in prunable.captured.nodes:
        if node.op == "placeholder":
            made_of_states = node.name in states or node.name in prunable.captured.constants
            name = states.get(node.name)
            behind[node] = frozenset([name] if name else []) if made_of_states else None
            continue
        sources = [behind[each] for each in node.all_input_nodes]
        behind[node] = None if None in sources else frozenset().union(*(each for each in sources if each))
        if node.op != "call_function":
            continue
        operator = operator_name(node)
        inputs = node.all_input_nodes
        for each in inputs:
            for name in behind[each] or ():
                known = found.setdefault(name, _Use())
                weighs = operator in _OTHERS or (operator in LAYER_OPERATORS and each is node.args[1])
                if weighs and known.operator is None:
                    found[name] = _Use(operator, each.op == "placeholder")
    return found
