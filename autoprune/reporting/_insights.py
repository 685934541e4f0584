"""Estimates from a study how many trials would have been enough, and which groups matter.

Example:
    enough_trials(study.records())                  # 24
    group_importances(study)                        # {"layer3.0.conv1": 0.31, "layer2.0.conv1": 0.12, ...}
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator, get_param_importances

from autoprune.space import SHARE
from autoprune.study import SearchStudy, TrialRecord

FEWEST_TRIALS = 20
"""Number of complete trials that importances need. With fewer they are chance."""

MOST_FOR_FANOVA = 200
"""Number of complete trials up to which fANOVA takes seconds. PED-ANOVA is faster, but needs more trials."""


def enough_trials(records: Iterable[TrialRecord]) -> int | None:
    """Return after how many trials the best score so far was within its standard error of the best of all.

    Args:
        records: of all trials, by number.

    Returns:
        The number of trials, or None if none is complete.
    """
    whole = [record for record in records if record.is_whole]
    if not whole:
        return None
    best = max(record.scores[-1].score for record in whole)
    return next(
        record.number + 1
        for record in whole
        if record.scores[-1].score + (record.scores[-1].error or 0.0) >= best
    )


def group_importances(study: SearchStudy) -> dict[str, float]:
    """Return {variable: its share of the variance of the scores}, the largest first.

    Returns:
        The importances, or {} if the study has several objectives or a tolerance, so that budgets differ, or
        too few complete trials, or scores that hardly differ.

    Reference:
        Hutter et al., "An efficient approach for assessing hyperparameter importance", ICML 2014 (fANOVA).
        Watanabe et al., "PED-ANOVA", IJCAI 2023, for studies with more trials.
    """
    complete = sum(record.is_whole for record in study.records())
    if len(study.objectives) > 1 or study.least_score is not None or complete < FEWEST_TRIALS:
        return {}
    evaluator = (
        FanovaImportanceEvaluator(seed=0) if complete <= MOST_FOR_FANOVA else PedAnovaImportanceEvaluator()
    )
    with warnings.catch_warnings(), study.storage_errors():
        warnings.simplefilter("ignore")  # that a method is experimental, or that all scores are equal
        try:
            found = get_param_importances(study.optuna, evaluator=evaluator)
        except RuntimeError:  # the scores are so alike that the trees of fANOVA have no variance
            return {}
    return {name: float(value) for name, value in found.items() if name != SHARE}
