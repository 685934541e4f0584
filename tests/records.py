"""The parts of records by which two searches that must agree are compared."""

from __future__ import annotations

from dataclasses import replace

from autoprune.study import TrialRecord


def comparable(record: TrialRecord) -> TrialRecord:
    """All but the times, which differ between searches that do the same."""
    scores = tuple(replace(score, seconds=0.0) for score in record.scores)
    return replace(record, scores=scores, seconds=None)
