"""Masks: weights that are held at zero while the others train on, from single weights to whole channels.

    masks = make_masks(prunable, 0.8, granularity="kernel")
    masks.apply(model)
    fit(model, data, schedule, setting, Task(), seed=0, hooks=(MaskHook(masks),))

Zeros alone make no layer faster. Masks of whole channels do once `compile_masks` has cut them, and "2:4"
masks do on CUDA devices after `torch.sparse.to_sparse_semi_structured`.

A score of your own needs no row. `score = "mypkg.scores:squares"` names its function or its spec:

    from torch import Tensor
    from autoprune.masks import ScoreInput, ScoreSpec

    def squares(given: ScoreInput) -> dict[str, Tensor]:
        return {name: weight.detach().square() for name, weight in given.weights.items()}

    spec = ScoreSpec(squares, needs="weights")
"""

from __future__ import annotations

from autoprune.masks._channels import Compiled, channel_masks, compile_masks, narrow_masks, whole_channels
from autoprune.masks._counts import Remaining, remaining, remaining_of
from autoprune.masks._granularity import GRANULARITIES, GranularitySpec
from autoprune.masks._hook import GradualMasks, MaskHook, cubic_sparsity
from autoprune.masks._making import MaskRule, make_masks
from autoprune.masks._masks import Masks, load_masks, save_masks
from autoprune.masks._scores import SCORES, ScoreInput, ScoreSpec

__all__ = [
    "GRANULARITIES",
    "SCORES",
    "Compiled",
    "GradualMasks",
    "GranularitySpec",
    "MaskHook",
    "MaskRule",
    "Masks",
    "Remaining",
    "ScoreInput",
    "ScoreSpec",
    "channel_masks",
    "compile_masks",
    "cubic_sparsity",
    "load_masks",
    "make_masks",
    "narrow_masks",
    "remaining",
    "remaining_of",
    "save_masks",
    "whole_channels",
]
