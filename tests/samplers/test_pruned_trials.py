"""The value of a pruned trial: computed by hand, and as samplers need it."""

from __future__ import annotations

import time

import numpy as np
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.samplers import ENDED_BEFORE, OUTCOME, SCORES
from autoprune.samplers._pruned_trials import PENALTY, as_climbed, value_of_pruned

CLIMBED = [[0.30, 0.20, 0.92], [0.36, 0.10, 0.90], [0.42, 0.30, 0.96]]
"""Of three rungs; the last one's scores are 0.90, 0.92 and 0.96, whose spread is 0.06."""


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([0.30], 0.90 - 2 * PENALTY * 0.06),  # as low among its rung's scores as 0.90 among the last one's
        ([0.33], 0.91 - 2 * PENALTY * 0.06),
        ([0.36], 0.92 - 2 * PENALTY * 0.06),
        ([0.99], 0.96 - 2 * PENALTY * 0.06),  # the best of the rung is the best there can be
        ([0.25], 0.87 - 2 * PENALTY * 0.06),  # halfway down to the lowest
        ([0.20], 0.84 - 2 * PENALTY * 0.06),  # the lowest: one spread below the worst
        ([0.10], 0.84 - 2 * PENALTY * 0.06),  # lower than all before
        ([0.30, 0.30], 0.96 - PENALTY * 0.06),  # one rung less is missing
        ([0.99, 0.15], 0.91 - PENALTY * 0.06),  # judged by its last rung
    ],
)
def test_values_by_hand(scores: list[float], expected: float) -> None:
    lowest = [0.2, 0.1][len(scores) - 1]
    assert value_of_pruned(scores, climbed=CLIMBED, lowest=lowest, rungs=3) == pytest.approx(expected)


def test_if_none_has_climbed_only_the_score_counts() -> None:
    assert value_of_pruned([0.3], climbed=[], lowest=0.1, rungs=2) == 0.3


def test_one_climbed_trial_sets_the_level_alone() -> None:
    assert value_of_pruned([0.1], climbed=[[0.3, 0.9]], lowest=0.1, rungs=2) == 0.9


@pytest.mark.parametrize("level", [-0.6, 0.0, 0.6])
def test_the_order_stays_and_none_beats_the_best(level: float) -> None:
    """Whether the last rung's scores lie above or below the first one's."""
    rng = np.random.default_rng(0)
    quality = rng.uniform(0, 1, 30)
    first = 0.2 + 0.2 * quality + rng.normal(0, 0.02, 30)
    last = first.mean() + level + 0.03 * quality
    climbed = [[float(first[n]), float(last[n])] for n in range(12)]
    values = [
        value_of_pruned([float(first[n])], climbed=climbed, lowest=float(first.min()), rungs=2)
        for n in range(12, 30)
    ]
    order = np.argsort(first[12:])
    assert (np.diff(np.array(values)[order]) >= 0).all()
    assert max(values) < last[:12].max()
    spread = float(np.ptp(last[:12]))
    assert min(values) >= last[:12].min() - (1 + PENALTY) * spread - 1e-12


def ended(number: int, scores: list[float], before: int, state: TrialState | None = None) -> FrozenTrial:
    """A trial of three rungs that ended when `before` others had; pruned if it did not climb them all."""
    state = state or (TrialState.COMPLETE if len(scores) == 3 else TrialState.PRUNED)
    trial = create_trial(
        state=state,
        value=None if state == TrialState.FAIL else scores[-1],
        user_attrs={SCORES: [{"score": score} for score in scores], OUTCOME: {ENDED_BEFORE: before}},
    )
    trial.number = number
    return trial


def test_a_pruned_trials_value_depends_on_earlier_trials_and_never_changes() -> None:
    before = [ended(number, scores, number) for number, scores in enumerate(CLIMBED)]
    lowest = ended(3, [0.2], 3)
    pruned = ended(9, [0.33], 4)
    expected = 0.91 - 2 * PENALTY * 0.06
    trials = [*before, lowest, pruned]
    assert as_climbed(trials, rungs=3)[9].values == [pytest.approx(expected)]
    later = [
        ended(4, [0.9, 0.9, 0.99], 5),
        ended(5, [0.01], 6),
        create_trial(state=TrialState.RUNNING),
        ended(6, [0.0, 0.0], 2, TrialState.FAIL),
    ]
    shown = as_climbed([*later[::-1], *trials[::-1]], rungs=3)
    assert shown[9].values == [pytest.approx(expected)]
    assert shown.keys() == {3, 5, 9}
    assert {trial.state for trial in shown.values()} == {TrialState.COMPLETE}
    assert (pruned.state, pruned.values) == (TrialState.PRUNED, [0.33])


def test_a_pruned_trial_without_scores_stays_as_it_is() -> None:
    """Somebody else added it, so its meaning is not known."""
    foreign = create_trial(state=TrialState.PRUNED, intermediate_values={1: 0.3})
    assert as_climbed([ended(0, CLIMBED[0], 0), foreign], rungs=3) == {}


def test_three_hundred_trials_take_milliseconds() -> None:
    """They are computed for every proposal."""
    trials = [ended(number, CLIMBED[number % 3][: 1 + 2 * (number % 2)], number) for number in range(300)]
    begin = time.process_time()
    assert len(as_climbed(trials, rungs=3)) == 150
    assert time.process_time() - begin < 0.5
