"""Torch-Pruning's candidates: its global pruning at the keep ratio that meets a budget.

Torch-Pruning chooses the channels itself, and the caller finetunes its models.

Example:
    model = pruned(dense, example, "tp-l1", lambda model: count_macs(model, example) / limit)
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable

import torch_pruning as tp  # type: ignore[import-untyped]  # ships no types
from torch import Tensor, nn

from experiments.common import largest_within

IMPORTANCES = {
    "tp-l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "tp-group": lambda: tp.importance.GroupMagnitudeImportance(p=2),
}
"""With the defaults of Torch-Pruning 1.6: the mean over a group's layers, divided by that of its channels."""

ISOMORPHIC = "tp-isomorphic"
"""Ranks layers of the same kind together, each kind cut by the same share (Fang et al., ECCV 2024)."""


def pruned(dense: nn.Module, example: Tensor, name: str, load: Callable[[nn.Module], float]) -> nn.Module:
    """Prune a copy of the dense model.

    Args:
        dense: the model.
        example: an input.
        name: of IMPORTANCES, or ISOMORPHIC.
        load: the cost of a model as a share of its limit.

    Returns:
        The largest model within the budget among those of the ratios that bisection tries.
    """
    return largest_within(lambda kept: prune(dense, example, name, kept), load)


def prune(
    dense: nn.Module, example: Tensor, name: str, kept: float, round_to: int | None = None
) -> nn.Module:
    """Prune a copy of the dense model.

    Args:
        dense: the model.
        example: an input.
        name: of IMPORTANCES, or ISOMORPHIC.
        kept: share of the channels that stay.
        round_to: widths are multiples of it.
    """
    model = copy.deepcopy(dense).eval()
    head = next(module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear))
    with warnings.catch_warnings(action="ignore"):
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=IMPORTANCES.get(name, IMPORTANCES["tp-group"])(),
            global_pruning=True,
            isomorphic=name == ISOMORPHIC,
            pruning_ratio=1 - kept,
            round_to=round_to,
            ignored_layers=[head],
        )
        pruner.step()
    return model
