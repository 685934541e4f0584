"""Shows pruned trials as complete ones to samplers that learn from complete trials alone.

The storage keeps a pruned trial as Optuna does, with its scores. A Gaussian process ignores such a trial and
would propose the same region again. So the trial is shown with an estimate of its score on the last rung,
which is computed from the trials that ended before it.

Example:
    shown = as_climbed(trials, rungs=2)      # {number: the pruned trial as it is shown}
    value_of_pruned([0.31], climbed=[[0.30, 0.90], [0.36, 0.92]], lowest=0.17, rungs=2)    # 0.9013
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from autoprune.samplers._attributes import SCORES, fact_of
from autoprune.samplers._past_trials import place_of_end

PENALTY = 0.1
"""Share of the last rung's spread that a trial loses for each rung that it did not climb."""


def as_climbed(trials: Sequence[FrozenTrial], rungs: int) -> dict[int, FrozenTrial]:
    """Return {number: the trial as a complete one} for the pruned trials that hold scores.

    Only trials that ended before a pruned trial count towards its value. So the value never changes, and a
    resumed search sees the same trials as an uninterrupted one.

    Args:
        trials: of one space and one objective, in any order. Those that have not ended are ignored.
        rungs: number of rungs that a complete trial has climbed.
    """
    before: list[list[float]] = []
    shown = {}
    for trial in sorted((each for each in trials if each.state.is_finished()), key=place_of_end):
        scores = [float(score["score"]) for score in fact_of(trial, SCORES, ())]
        if trial.state == TrialState.FAIL or not scores:
            continue
        if trial.state == TrialState.PRUNED:
            rung = len(scores) - 1
            shown[trial.number] = copy.copy(trial)
            shown[trial.number].state = TrialState.COMPLETE
            shown[trial.number].values = [
                value_of_pruned(
                    scores,
                    climbed=[each for each in before if len(each) == rungs],
                    lowest=min((each[rung] for each in before if len(each) > rung), default=scores[rung]),
                    rungs=rungs,
                )
            ]
        before.append(scores)
    return shown


def value_of_pruned(
    scores: Sequence[float], *, climbed: Sequence[Sequence[float]], lowest: float, rungs: int
) -> float:
    """Estimate the last rung's score of a pruned trial from the rank of its score on its own rung.

    Scores of different rungs are not comparable: a net at a quarter of its FLOPs may score 0.3 after
    recalibration and 0.9 after a finetune. With its own score, a pruned trial would lie far below complete
    ones, whatever its widths are. If the budget is mild and short finetunes cost accuracy, it would lie above
    them. So the trials that climbed all rungs map scores of the rung to last scores (quantile by quantile,
    linear in between). The lowest score of the rung maps to a score as far below their worst last score as
    that is below their best. If no trial has climbed all rungs, the score itself is returned.

    Args:
        scores: of the pruned trial, one for each rung that it climbed.
        climbed: scores of the trials that climbed all rungs, [rungs] each.
        lowest: lowest score that any trial had on the pruned trial's last rung.
        rungs: number of all rungs.
    """
    rung = len(scores) - 1
    if not climbed:
        return scores[rung]
    here = sorted(each[rung] for each in climbed)
    last = sorted(each[-1] for each in climbed)
    spread = last[-1] - last[0]
    lowest = min(lowest, scores[rung])
    # np.interp is constant outside its points. So a point is added below the worst trial that climbed all
    # rungs, and scores below that trial still differ.
    if lowest < here[0]:
        here.insert(0, lowest)
        last.insert(0, last[0] - spread)
    return float(np.interp(scores[rung], here, last)) - PENALTY * spread * (rungs - len(scores))
