"""Training with a penalty that drives channels to zero, and the threshold that cuts them.

A penalty is a row of PENALTIES.

    sparse = sparsify(prunable, data, Schedule(epochs=40), setting, Task(), penalty="bn-l1", strength=1e-3)
    plan = threshold_plan(sparse.prunable, share=0.4, floor=1)

A penalty of your own needs no row. `penalty = "mypkg.penalties:squares"` names its function or its spec:

    from torch import Tensor
    from autoprune.sparsity import PenaltyInput, PenaltySpec

    def squares(given: PenaltyInput, factor: float = 1.0) -> Tensor:
        return factor * sum(scale.square().sum() for scale in given.scales)

    def halve(scale: Tensor, amount: float) -> Tensor:
        return scale / (1 + amount)

    decoupled = PenaltySpec(squares, proximal=halve)
"""

from __future__ import annotations

from autoprune.sparsity._history import ScaleHistory
from autoprune.sparsity._hook import PenaltyHook, scale_places
from autoprune.sparsity._penalties import Penalty, PenaltyInput
from autoprune.sparsity._specs import PENALTIES, PenaltySpec
from autoprune.sparsity._threshold import check_share, threshold_plan, threshold_plan_within
from autoprune.sparsity._training import (
    Sparsified,
    StrengthTrial,
    check_penalty,
    check_strengths,
    choose,
    sparsify,
)

__all__ = [
    "PENALTIES",
    "Penalty",
    "PenaltyHook",
    "PenaltyInput",
    "PenaltySpec",
    "ScaleHistory",
    "Sparsified",
    "StrengthTrial",
    "check_penalty",
    "check_share",
    "check_strengths",
    "choose",
    "scale_places",
    "sparsify",
    "threshold_plan",
    "threshold_plan_within",
]
