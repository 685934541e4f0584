"""torch-kirigami's candidates: its greedy choice by group magnitude, within a number of parameters.

It has no other budget. It has to be installed: `pip install torch-kirigami`.

Example:
    model = pruned(dense, example, params=50_000)
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

ATTEMPTS = 1_000_000
"""Of its greedy choice. The default of 10,000 is too few for larger nets."""


def pruned(dense: nn.Module, example: Tensor, params: int) -> nn.Module:
    """Prune a copy of the dense model to at most this many parameters."""
    import torch_kirigami  # type: ignore[import-untyped, import-not-found, unused-ignore]
    from torch_kirigami import pruning  # type: ignore[import-untyped, import-not-found, unused-ignore]

    model = copy.deepcopy(dense).eval()
    graph = torch_kirigami.DependencyGraph.build(model, args=(example,))
    pruner = pruning.Pruner(model, graph=graph)
    small, _ = pruner.prune(
        pruner.discover_candidates(),
        budget=pruning.ParameterBudget(max_params=params),
        strategy=pruning.Greedy(pruning.GroupMagnitude(p=2), max_trials=ATTEMPTS),
    )
    found: nn.Module = small
    return found
