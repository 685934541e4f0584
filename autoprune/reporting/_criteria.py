"""Compare the criteria that the trials of a search chose from.

Example:
    criterion_scores(study.records())[0]       # CriterionScore("obs", score=0.913, error=0.004, share=0.41)
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from autoprune.study import SAMPLER, TrialRecord

FEWEST_SPARE = 3
"""Number of trials that a comparison needs in addition to one for each criterion."""


_COLLINEAR = 1e-8
"""Shares count as collinear if their smallest singular value is below this part of the largest."""


@dataclass(frozen=True)
class CriterionScore:
    """A criterion as the scores of a study show it.

    Attributes:
        criterion: its name.
        score: expected score of a trial that ranks all its narrowed groups by it.
        error: standard error of this score.
        share: mean share of the narrowed groups that trials ranked by it.
        trials: number of trials that are compared.
    """

    criterion: str
    score: float
    error: float
    share: float
    trials: int


def criterion_scores(records: Iterable[TrialRecord]) -> tuple[CriterionScore, ...]:
    """Fit the scores of complete trials by the shares of their groups that each criterion ranks.

    Only trials that the sampler proposed count: warm starts all use the first criterion, and their widths
    are chosen with care.

    Returns:
        The criteria, the one with the highest score first, or nothing if there are too few trials. A
        criterion is left out if trials always used it in a fixed proportion to others, because its part in
        their scores cannot be separated.
    """
    compared = [
        each
        for each in records
        if each.is_whole and each.criteria and each.origin == SAMPLER and each.reused is None
    ]
    names = sorted({name for record in compared for name in record.criteria.values()})
    if len(names) < 2 or len(compared) - len(names) < FEWEST_SPARE:
        return ()
    chosen = [list(record.criteria.values()) for record in compared]
    shares = np.array([[each.count(name) / len(each) for name in names] for each in chosen])
    scores = np.array([record.score for record in compared], dtype=np.float64)
    # Not from shares.T @ shares: its squared condition loses small directions, and with them errors.
    inverse = np.linalg.pinv(shares, rcond=_COLLINEAR)
    fitted = inverse @ scores
    spare = len(compared) - int(np.linalg.matrix_rank(shares, tol=_COLLINEAR * np.linalg.norm(shares, 2)))
    variance = float(np.square(scores - shares @ fitted).sum()) / spare
    errors = np.sqrt(variance * np.square(inverse).sum(axis=1))
    is_separate = np.isclose(np.diag(inverse @ shares), 1)
    found = [
        CriterionScore(name, float(score), float(error), float(share), len(compared))
        for name, score, error, share in zip(names, fitted, errors, shares.mean(axis=0), strict=True)
    ]
    ranked = [each for each, separate in zip(found, is_separate, strict=True) if separate]
    return tuple(sorted(ranked, key=lambda each: -each.score)) if len(ranked) > 1 else ()
