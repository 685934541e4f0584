"""Torch-Pruning's candidates: its global pruning at the keep ratio that meets a share of the FLOPs.

Torch-Pruning chooses the channels itself, and `finetunes` finetunes its models.

Example:
    model, share = pruned(dense, example, "l1", 0.25)      # MACs of a quarter at most
"""

from __future__ import annotations

import copy
import warnings

import torch_pruning as tp  # type: ignore[import-untyped]  # ships no types
from torch import Tensor, nn

from experiments.common import count_macs

IMPORTANCES = {
    "tp-l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
    "tp-group": lambda: tp.importance.GroupMagnitudeImportance(p=2),
}
"""With the defaults of Torch-Pruning 1.6: the mean over a group's layers, divided by that of its channels."""

HALVINGS = 14


def pruned(dense: nn.Module, example: Tensor, importance: str, share: float) -> tuple[nn.Module, float]:
    """Prune a copy of the dense model; returns it with the share of the dense MACs that is left.

    The largest model under the share among those of the ratios that bisection tries.
    """
    whole = count_macs(dense, example)
    best: tuple[nn.Module, float] | None = None
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        ratio = (low + high) / 2
        model = _prune(dense, example, importance, ratio)
        left = count_macs(model, example) / whole
        if left > share:
            low = ratio
            continue
        high = ratio
        if best is None or left > best[1]:
            best = (model, left)
    if best is None:
        raise AssertionError(f"{importance}: no ratio meets {share:.0%} of the MACs")
    return best


def _prune(dense: nn.Module, example: Tensor, importance: str, ratio: float) -> nn.Module:
    model = copy.deepcopy(dense).eval()
    head = next(module for module in reversed(list(model.modules())) if isinstance(module, nn.Linear))
    with warnings.catch_warnings(action="ignore"):
        pruner = tp.pruner.BasePruner(
            model,
            example,
            importance=IMPORTANCES[importance](),
            global_pruning=True,
            pruning_ratio=ratio,
            ignored_layers=[head],
        )
        pruner.step()
    return model
