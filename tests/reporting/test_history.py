"""Warm starts and the sampler are ordered by their best trials."""

from __future__ import annotations

import dataclasses

from autoprune.config.rungs import RungScore
from autoprune.reporting._history import origins
from autoprune.study import TrialRecord
from tests.reporting.test_tables import FAILED, RECORD


def trial(origin: str, score: float) -> TrialRecord:
    return dataclasses.replace(
        RECORD, origin=origin, value=score, scores=(RungScore(0, "50 steps", score, 0.1),)
    )


def test_a_score_of_zero_is_a_score() -> None:
    failed = dataclasses.replace(FAILED, origin="l2")
    found = origins([trial("l1", -1.0), failed, trial("sampler, uniform", -2.0), trial("uniform", 0.0)])
    assert [each.name for each in found] == ["uniform", "l1", "sampler", "l2"]
    assert [each.best is None for each in found] == [False, False, False, True]
