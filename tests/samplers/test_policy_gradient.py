"""The policy gradient: which way the means and spreads move, and that they move towards the best plan."""

from __future__ import annotations

import numpy as np

from autoprune.samplers import Brief
from autoprune.samplers.history import Outcome, places, ratios_at
from autoprune.samplers.policy_gradient import LARGEST_SPREAD, SMALLEST_SPREAD, START_MEAN, learn_policy
from tests.samplers.search import space_of

BRIEF = Brief(seed=0, search_seed=0, trials=60, space=space_of(4))


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
