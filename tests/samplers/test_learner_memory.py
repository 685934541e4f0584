"""Learners in memory: each trial is learnt from once, and memory of another history is not used."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.samplers import SamplerContext
from autoprune.samplers._learner_memory import learnt
from autoprune.samplers._past_trials import Outcome
from tests.samplers.search import space_of


class Diary:
    """Notes the scores that it absorbs."""

    def __init__(self) -> None:
        self.scores: list[float] = []

    def absorb(self, outcome: Outcome) -> None:
        self.scores.append(outcome.score)


def context() -> SamplerContext:
    return SamplerContext(seed=0, search_seed=0, trials=10, space=space_of(2))


def outcomes(scores: Sequence[float], place: float = 0.5) -> tuple[Outcome, ...]:
    return tuple(Outcome(np.full(2, place), score) for score in scores)


def diary(told: SamplerContext, past: Sequence[Outcome], name: str = "diary") -> Diary:
    return learnt(told, past, name, Diary)


def test_it_continues_from_its_last_state() -> None:
    told = context()
    first = diary(told, outcomes([1.0, 2.0]))
    again = diary(told, outcomes([1.0, 2.0, 3.0]))  # other objects, as each reading of the storage makes
    assert again is first
    assert again.scores == [1.0, 2.0, 3.0]


def test_another_history_is_learnt_again() -> None:
    told = context()
    for past in (outcomes([1.0, 3.0]), outcomes([1.0]), outcomes([1.0], place=0.7), ()):
        before = diary(told, outcomes([1.0, 2.0]))
        fresh = diary(told, past)
        assert fresh is not before
        assert fresh.scores == [outcome.score for outcome in past]


def test_every_learner_has_a_place_of_its_own() -> None:
    told = context()
    one, other = (diary(told, outcomes([1.0]), name) for name in ("one", "other"))
    assert one is not other
    assert diary(told, outcomes([1.0]), "one") is one
