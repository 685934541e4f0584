"""Score candidates: climb the rungs of a trial, measure the sensitivity to cuts, train a supernet."""

from __future__ import annotations

from autoprune.score._finetune_score import FinetuneScore, Rung, calibrate, cut_model, plan_of
from autoprune.score._ranking import choose, loss_of, rank
from autoprune.score._sensitivity import Cut, Cutter, cut_scores, divergences, sensitive_groups
from autoprune.score._single_cuts import SingleCuts, plan_cuts, score_single_cuts
from autoprune.score._supernet import SandwichSampler, with_model

__all__ = [
    "Cut",
    "Cutter",
    "FinetuneScore",
    "Rung",
    "SandwichSampler",
    "SingleCuts",
    "calibrate",
    "choose",
    "cut_model",
    "cut_scores",
    "divergences",
    "loss_of",
    "plan_cuts",
    "plan_of",
    "rank",
    "score_single_cuts",
    "sensitive_groups",
    "with_model",
]
