"""Shows pruned trials as complete ones to samplers that learn from complete trials alone.

The storage keeps a pruned trial as Optuna does, with the scores that it reached. To a Gaussian process such a
trial is nothing: it would propose there again. So it is shown with the score of the last rung that it stands
for, which is computed from the trials that ended before it.

    shown = as_climbed(trials, rungs=2)      # {number: the pruned trial as it is shown}
    value_of_pruned([0.31], climbed=[[0.30, 0.90], [0.36, 0.92]], lowest=0.17, rungs=2)    # 0.9013
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from autoprune.samplers._attributes import SCORES
from autoprune.samplers._past_trials import place_of_end

PENALTY = 0.1
"""Share of the last rung's spread that a trial loses for each rung that it did not climb."""


def as_climbed(trials: Sequence[FrozenTrial], rungs: int) -> dict[int, FrozenTrial]:
    """Return {number: the trial as a complete one} for the pruned trials that hold scores.

    Only trials that ended before a pruned one count towards its value. So it never changes, and a search that
    is resumed sees the same as one that was not interrupted.

    Args:
        trials: of one space and one objective, in any order. Those that have not ended do not matter.
        rungs: how many rungs a complete trial has climbed.
    """
    before: list[list[float]] = []
    shown = {}
    for trial in sorted((each for each in trials if each.state.is_finished()), key=place_of_end):
        scores = [float(score["score"]) for score in trial.user_attrs.get(SCORES, ())]
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
    """Return the last rung's score that stands as high there as the trial's does on its rung.

    Rungs lie far apart: a net at a quarter of its FLOPs may score 0.3 after recalibration, and 0.9 after a
    finetune. With their own scores, pruned trials would lie far below complete ones, which says nothing about
    widths. Or they would lie above them, if the budget is mild and short finetunes cost accuracy. So the
    trials that climbed to the top define the last score that goes with each score of the rung (quantile by
    quantile, linear in between). The lowest score of the rung stands as far below their worst last score as
    that is below their best. If none has climbed yet, the score itself is returned.

    Args:
        scores: of the pruned trial, a rung each.
        climbed: scores of the trials that climbed to the top, [rungs] each.
        lowest: lowest score that any trial had on the trial's last rung.
        rungs: to climb.
    """
    rung = len(scores) - 1
    if not climbed:
        return scores[rung]
    here = sorted(each[rung] for each in climbed)
    last = sorted(each[-1] for each in climbed)
    spread = last[-1] - last[0]
    lowest = min(lowest, scores[rung])
    if lowest < here[0]:
        here.insert(0, lowest)
        last.insert(0, last[0] - spread)
    return float(np.interp(scores[rung], here, last)) - PENALTY * spread * (rungs - len(scores))
