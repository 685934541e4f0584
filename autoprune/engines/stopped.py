"""Own what a stopped trial is worth to samplers that ignore pruned trials: a score as the last rung has them.

Before: a trial was stopped on some rung; after: `TrialRunner` tells it as complete, with this value.

    value_of_stopped([0.31], climbed=[[0.30, 0.90], [0.36, 0.92]], lowest=0.17, rungs=2)    # 0.9013
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PENALTY = 0.1
"""Share of the last rung's spread that a trial loses for each rung that it did not climb."""


def value_of_stopped(
    scores: Sequence[float], *, climbed: Sequence[Sequence[float]], lowest: float, rungs: int
) -> float:
    """Return the last rung's score that stands as high there as the trial's does on its rung.

    Rungs lie far apart: a net at a quarter of its FLOPs may score 0.3 after recalibration, and 0.9 after a
    finetune. Told as they are, stopped trials would be a cliff beside complete ones, which says nothing of
    widths; or lie above them, where the budget is mild and short finetunes cost accuracy. So the trials that
    climbed to the top tell which last score goes with which score of the rung (quantile by quantile, linear
    in between), and the lowest score of the rung stands as far below their worst last score as that is below
    their best. Where none has climbed yet the score itself is all there is.

    Args:
        scores: of the stopped trial, a rung each.
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
