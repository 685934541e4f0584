"""Own the order among trials: which are dominated, and which is the best of several.

Before: the records of a study; after: reports show the front, `finetune` retrains the best.

    front_of(study.records(), ("score", "macs"))       # none of them is worse than another in both
    best_of(records, ("score",)).number
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from autoprune.study._records import TrialRecord, cost_of


def front_of(
    records: Iterable[TrialRecord], objectives: Sequence[str], dense_ms: float | None = None
) -> list[TrialRecord]:
    """Return the trials that climbed every rung and that none dominates, the cheapest first.

    A trial that took another's scores is not listed beside it, nor is one that was over the limit when timed.

    Args:
        records: of a study.
        objectives: "score", then the costs, of which one or more are given.
        dense_ms: the dense model's latency, where latency is one of them; see `cost_of`.
    """
    whole = [
        record
        for record in records
        if record.is_whole and record.reused is None and not was_over_limit(record)
    ]
    if not whole:
        return []
    costs = np.array([_loss(record, objectives, dense_ms) for record in whole])
    kept = [record for record, free in zip(whole, _undominated(costs), strict=True) if free]
    return sorted(kept, key=lambda record: _loss(record, objectives, dense_ms)[1:])


def best_of(
    records: Sequence[TrialRecord], objectives: Sequence[str], dense_ms: float | None = None
) -> TrialRecord:
    """Return the trial with the best score; among equals the cheapest by the objectives, then the first."""
    return min(records, key=lambda record: (*_loss(record, objectives, dense_ms), record.number))


def was_over_limit(record: TrialRecord) -> bool:
    """Tell whether a trial was timed and found to be over the latency that its search allows."""
    return record.measured is not None and record.measured.met is False


def _loss(record: TrialRecord, objectives: Sequence[str], dense_ms: float | None) -> tuple[float, ...]:
    """Return what is to be low: minus the score, then the costs."""
    return (-(record.score or 0.0), *(cost_of(record, name, dense_ms) for name in objectives[1:]))


def _undominated(losses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell [n] which of losses [n, objectives] no other is below in one and above in none."""
    free = np.empty(len(losses), dtype=bool)
    for place, loss in enumerate(losses):
        free[place] = not ((losses <= loss).all(axis=1) & (losses < loss).any(axis=1)).any()
    return free
