"""The budget that moves between trials: its steps by hand, and killed searches with every sampler."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState, create_trial

from autoprune.samplers import PLANNED, SAMPLERS, MovingBudget, distributions
from autoprune.samplers._moving_budget import Step
from autoprune.space import SHARE
from tests.samplers.search import Proposals, Search, kill_somewhere, moving_of, shared_space_of

TRIALS = 18


def length(name: str) -> int:
    """Fewer trials for the sampler that learns longest."""
    return 10 if name == "ddpg" else TRIALS


SPACE = shared_space_of(4)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def ran(moving: MovingBudget, step: Step, number: int, score: float | None) -> FrozenTrial:
    """Return the trial of a step that ended with a score, or that still runs."""
    ratios = moving.space.ladder.ratios(np.array([[step.level, 0, 0, 0, 0]]))[0]
    trial = create_trial(
        state=TrialState.RUNNING if score is None else TrialState.COMPLETE,
        value=score,
        params=dict(zip(distributions(moving.space.variables), ratios.tolist(), strict=True)),
        distributions=dict(distributions(moving.space.variables)),
        system_attrs={PLANNED: None if step.planned is None else list(step.planned)},
    )
    trial.number = number
    return trial


def follow(moving: MovingBudget, edge: float, count: int) -> list[Step]:
    """Return the first steps of a search in which trials pass from the share `edge` on."""
    trials: list[FrozenTrial] = []
    steps = []
    for number in range(count):
        step = moving.next(trials, number)
        share = float(moving.space.shares[step.level])
        trials.append(ran(moving, step, number, 0.0 if share >= edge else -2.0))
        steps.append(step)
    return steps


@pytest.mark.parametrize("edge", [0.0, 0.1, 0.47, 0.93, 2.0])
def test_a_bisection_finds_where_plans_begin_to_pass(edge: float) -> None:
    moving = moving_of(SPACE, 60)
    plans = moving.plans["uniform"]
    steps = follow(moving, edge, 8)
    bisected = [step.planned[1] for step in steps if step.planned and step.planned[0] == "uniform"]
    assert 4 <= len(bisected) <= 5
    assert len(set(bisected)) == len(bisected)
    first = next(
        (place for place, row in enumerate(plans) if moving.space.shares[row[0]] >= edge), len(plans)
    )
    assert {first - 1, first} & set(range(len(plans))) <= set(bisected)
    compared = steps[len(bisected)]
    assert compared.planned == ("narrow ends", min(max(first - 1, 0), len(plans) - 1))
    for step in steps:
        if step.plan is not None:
            assert step.level == step.plan[0]
    assert all(step.planned is None for step in steps[len(bisected) + 1 :])


def test_steps_below_the_edge_double_after_a_success_and_halve_after_a_failure() -> None:
    moving = moving_of(SPACE, 60)
    trials: list[FrozenTrial] = []
    while (step := moving.next(trials, len(trials))).planned is not None:
        share = float(moving.space.shares[step.level])
        trials.append(ran(moving, step, len(trials), 0.0 if share >= 0.5 else -2.0))
    edge = min(moving.level_of(trial) for trial in trials if moving.passes(trial))
    first = edge - step.level
    assert first >= 2
    trials.append(ran(moving, step, len(trials), 0.0))
    assert moving.next(trials, len(trials)).level == step.level - 2 * first
    trials.append(ran(moving, moving.next(trials, len(trials)), len(trials), -2.0))
    assert moving.next(trials, len(trials)).level == step.level - first
    trials.append(ran(moving, moving.next(trials, len(trials)), len(trials), None))
    assert moving.next(trials, len(trials)).level == step.level - first  # it still runs


def test_workers_bisect_at_different_places() -> None:
    moving = moving_of(SPACE, 60)
    trials: list[FrozenTrial] = []
    for number in range(3):
        trials.append(ran(moving, moving.next(trials, number), number, None))
    assert [trial.system_attrs[PLANNED][1] for trial in trials] == [7, 11, 3]


def test_a_failed_trial_does_not_pass() -> None:
    moving = moving_of(SPACE, 60)
    failed = ran(moving, moving.next([], 0), 0, None)
    failed.state = TrialState.FAIL
    assert moving.next([failed], 1).planned == ("uniform", 11)


def test_the_sampler_sees_how_much_better_trials_are_than_others_of_their_budget() -> None:
    moving = moving_of(SPACE, 60)
    levels, better = [10, 20, 30, 40, 40], [0.0, 0.0, 0.0, -0.1, 0.1]
    top = len(SPACE.shares) - 1
    trials = [
        ran(moving, Step(top - level), number, float(np.log(SPACE.shares[top - level]) + extra))
        for number, (level, extra) in enumerate(zip(levels, better, strict=True))
    ]
    shown = moving.near(trials, top - 25)
    assert SHARE not in shown[0].params
    assert SHARE not in shown[0].distributions
    np.testing.assert_allclose([shown[n].values[0] for n in range(5)], better, atol=1e-9)
    far = moving.near(trials, top)  # a share of 1, from which only the first two trials are near
    assert sorted(far) == [0, 1]
    assert SHARE in trials[0].params


@functools.cache
def uninterrupted(name: str) -> Proposals:
    return Search(name, 4, length(name), moves=True).run()


@pytest.mark.parametrize("name", SAMPLERS)
def test_a_killed_search_proposes_what_an_uninterrupted_one_would(name: str) -> None:
    killed = Search(name, 4, length(name), moves=True)
    assert killed.run(kill_somewhere) == uninterrupted(name)


@pytest.mark.parametrize("name", SAMPLERS)
def test_every_proposal_fills_the_budget_of_its_trial(name: str) -> None:
    search = Search(name, 4, length(name), moves=True)
    proposals = uninterrupted(name)
    filled = search.filled(proposals)
    assert ((filled >= 0.98) & (filled <= 1)).all()
    shares = [proposal[SHARE] for proposal in proposals]
    scores = [search.values(proposal)[0] for proposal in proposals]
    passed = [share for share, score in zip(shares, scores, strict=True) if score >= -1]
    assert min(passed) < 0.5
    assert len({tuple(proposal.values()) for proposal in proposals}) == length(name)


def test_criteria_are_chosen_under_a_moving_budget() -> None:
    criteria = ("l1", "l2")
    first = Search("tpe", 4, TRIALS, moves=True, criteria=criteria).run()
    assert Search("tpe", 4, TRIALS, moves=True, criteria=criteria).run(kill_somewhere) == first
    assert ((Search("tpe", 4, 0, moves=True, criteria=criteria).filled(first)) <= 1).all()
