"""Shows failed trials to samplers as complete ones, with the worst values that any trial had before.

Example:
    shown = as_worst(study.directions, trials)      # {number: the failed trial as it is shown}

Optuna's samplers learn from complete and pruned trials alone. A Gaussian process that ignores a failed trial
proposes the same region again, and each of those trials fails too.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from autoprune.samplers._past_trials import place_of_end


def as_worst(directions: Sequence[StudyDirection], trials: Sequence[FrozenTrial]) -> dict[int, FrozenTrial]:
    """Return {number: the trial as a complete one} for those that failed after any that was complete.

    The values are the worst, of each objective, among the trials that ended before it. So they never change,
    and a resumed search sees the same trials as an uninterrupted one.

    Args:
        directions: of the objectives.
        trials: of one space, in any order. Those that have not ended are ignored.
    """
    worst: list[float] = []
    shown = {}
    for trial in sorted((each for each in trials if each.state.is_finished()), key=place_of_end):
        if trial.state == TrialState.COMPLETE:
            worst = [
                max(pair) if direction == StudyDirection.MINIMIZE else min(pair)
                for direction, pair in zip(
                    directions, zip(worst or trial.values, trial.values, strict=True), strict=True
                )
            ]
        # Before any trial is complete there is no worst value, so such a failure is shown as it is.
        elif trial.state == TrialState.FAIL and worst:
            shown[trial.number] = copy.copy(trial)
            shown[trial.number].state = TrialState.COMPLETE
            shown[trial.number].values = worst
    return shown
