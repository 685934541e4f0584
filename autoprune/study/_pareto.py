"""The order among trials: the Pareto front of a study, and the best of several trials.

Example:
    front_of(study.records(), ("score", "macs"))       # no trial has a better score and fewer MACs than these
    best_of(records, ("score",)).number
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.study._records import TrialRecord


def front_of(
    records: Iterable[TrialRecord], objectives: Sequence[str], dense_ms: float | None = None
) -> list[TrialRecord]:
    """Return the Pareto front of the trials that climbed every rung, the cheapest first.

    Trials that took the scores of another trial are left out, and so are those that were measured to be over
    the latency budget.

    Args:
        records: of a study.
        objectives: "score", then one or more costs.
        dense_ms: latency of the dense model, if latency is an objective (see `TrialRecord.cost`).
    """
    whole = [
        record
        for record in records
        if record.is_whole and record.reused is None and not record.was_over_limit
    ]
    if not whole:
        return []
    costs = np.array([_loss(record, objectives, dense_ms) for record in whole])
    kept = [record for record, free in zip(whole, _undominated(costs), strict=True) if free]
    return sorted(kept, key=lambda record: _loss(record, objectives, dense_ms)[1:])


def best_of(
    records: Sequence[TrialRecord], objectives: Sequence[str], dense_ms: float | None = None
) -> TrialRecord:
    """Return the trial with the best score: of equals the cheapest by the objectives, then the first."""
    return min(records, key=lambda record: (*_loss(record, objectives, dense_ms), record.number))


def smallest_of(
    records: Sequence[TrialRecord], cost: str, least: float, dense_ms: float | None = None
) -> TrialRecord:
    """Return the trial with the lowest cost among those with a score of at least `least`.

    Of equal costs the better score counts, then the first trial. If no score is high enough, the trial with
    the best score is returned.
    """

    def rank(record: TrialRecord) -> tuple[bool, float, float, int]:
        score, amount = record.score or 0.0, record.cost(cost, dense_ms)
        return (
            (False, amount, -score, record.number)
            if score >= least
            else (True, -score, amount, record.number)
        )

    return min(records, key=rank)


def _loss(record: TrialRecord, objectives: Sequence[str], dense_ms: float | None) -> tuple[float, ...]:
    """Return the values to minimise: minus the score, then the costs."""
    return (-(record.score or 0.0), *(record.cost(name, dense_ms) for name in objectives[1:]))


def _undominated(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return [n] which of losses [n, objectives] no other dominates: lower in one, higher in none."""
    free = np.empty(len(losses), dtype=bool)
    for place, loss in enumerate(losses):
        free[place] = not ((losses <= loss).all(axis=1) & (losses < loss).any(axis=1)).any()
    return free
