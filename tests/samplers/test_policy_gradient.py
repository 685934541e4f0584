"""The policy gradient: which way means and spreads move, that they move to the best plan, and linear work."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from autoprune.samplers import SamplerContext
from autoprune.samplers._past_trials import Outcome, places, ratios_at
from autoprune.samplers.policy_gradient import (
    CLIP,
    ENTROPY,
    LARGEST_SPREAD,
    MEAN_RATE,
    SMALLEST_SPREAD,
    SPREAD_RATE,
    START_MEAN,
    START_SPREAD,
    PolicyLearner,
    learn_policy,
)
from tests.samplers.search import Search, space_of

BRIEF = SamplerContext(seed=0, search_seed=0, trials=60, space=space_of(4))


def outcome(where: list[float], score: float) -> Outcome:
    return Outcome(ratios_at(BRIEF, np.array(where)), score)


def test_places_and_ratios_are_each_others_inverse() -> None:
    where = np.random.default_rng(0).random((5, 4))
    np.testing.assert_allclose(places(BRIEF, ratios_at(BRIEF, where)), where)


def test_without_an_advantage_no_mean_moves() -> None:
    policy = learn_policy(BRIEF, [outcome([0.1, 0.2, 0.8, 0.9], 1.0)] * 5)
    np.testing.assert_array_equal(policy.mean, START_MEAN)


def test_means_move_to_better_plans_and_away_from_worse() -> None:
    at_start = outcome([0.5] * 4, 1.0)
    better, worse = (learn_policy(BRIEF, [at_start, outcome([0.1, 0.5, 0.7, 0.9], s)]) for s in (2.0, 0.0))
    for mean, sign in ((better.mean, 1), (worse.mean, -1)):
        np.testing.assert_array_equal(np.sign(mean - START_MEAN), sign * np.array([-1, 0, 1, 1]))


def test_spreads_widen_for_good_surprises_and_shrink_for_good_habits() -> None:
    at_start = outcome([0.5] * 4, 1.0)
    policy = learn_policy(BRIEF, [at_start, outcome([0.5, 0.5, 1.0, 1.0], 2.0)])
    usual = learn_policy(BRIEF, [at_start, at_start])
    assert (policy.spread[:2] < usual.spread[:2]).all()
    assert (policy.spread[2:] > usual.spread[2:]).all()


def test_one_failed_trial_moves_no_mean_further_than_two_deviations() -> None:
    """Of 20 scores of which the last is far off: unclipped, its advantage is over four deviations."""
    scores = [1.0 + 0.01 * (n % 2) for n in range(19)]
    far = [0.5] * 3 + [0.6]
    past = [outcome([0.5] * 4, score) for score in scores]
    before, after = learn_policy(BRIEF, past), learn_policy(BRIEF, [*past, outcome(far, -100.0)])
    moved = after.mean - before.mean
    np.testing.assert_allclose(moved, -CLIP * MEAN_RATE * (np.array(far) - before.mean), atol=1e-9)
    assert abs(moved[3]) > 0.01


def test_without_an_advantage_spreads_widen_by_the_entropy_alone() -> None:
    policy = learn_policy(BRIEF, [outcome([0.5] * 4, 1.0)] * 3)
    np.testing.assert_allclose(policy.spread, START_SPREAD * np.exp(3 * SPREAD_RATE * ENTROPY))


def test_the_scores_unit_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    plans = [(list(rng.random(4)), float(rng.random())) for _ in range(20)]
    first = learn_policy(BRIEF, [outcome(*plan) for plan in plans])
    other = learn_policy(BRIEF, [outcome(where, 1000 * score + 7) for where, score in plans])
    np.testing.assert_allclose(first.mean, other.mean)
    np.testing.assert_allclose(first.spread, other.spread)


def test_on_policy_draws_lead_to_the_best_plan() -> None:
    best, rng = np.array([0.2, 0.4, 0.6, 0.8]), np.random.default_rng(0)
    past: list[Outcome] = []
    for _ in range(150):
        policy = learn_policy(BRIEF, past)
        drawn = np.clip(rng.normal(policy.mean, policy.spread), 0, 1)
        past.append(outcome(list(drawn), -float(((drawn - best) ** 2).sum())))
    final = learn_policy(BRIEF, past)
    assert np.abs(final.mean - best).max() < 0.15
    assert ((final.spread >= SMALLEST_SPREAD) & (final.spread <= LARGEST_SPREAD)).all()


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The scores of all outcomes that a policy has moved for."""
    made: list[float] = []
    absorb = PolicyLearner.absorb

    def counted(self: PolicyLearner, outcome: Outcome) -> None:
        made.append(outcome.score)
        absorb(self, outcome)

    monkeypatch.setattr(PolicyLearner, "absorb", counted)
    return made


def test_the_work_of_200_trials_is_200_times_that_of_one(steps: list[float]) -> None:
    told = SamplerContext(seed=0, search_seed=0, trials=200, space=space_of(4))
    rng = np.random.default_rng(2)
    past = [outcome(list(rng.random(4)), float(n)) for n in range(200)]
    for n in range(1, 201):
        going = learn_policy(told, past[:n])
    assert steps == list(range(200))
    replayed = learn_policy(SamplerContext(seed=0, search_seed=0, trials=200, space=space_of(4)), past)
    np.testing.assert_array_equal(going.mean, replayed.mean)
    np.testing.assert_array_equal(going.spread, replayed.spread)


def test_proposals_and_their_attempts_take_no_step_twice(steps: list[float]) -> None:
    """One variable of few widths: most plans were tried, so that proposals take many attempts."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = Search("policy_gradient", 1, 30)
    search.run()
    finished = search.study.get_trials(
        deepcopy=False, states=[TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL]
    )
    assert len(finished) - 1 <= len(steps) <= len(finished)
    assert len(steps) > 10
