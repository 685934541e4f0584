"""The contract of every sampler: it repeats itself from the storage alone after any kill, and more."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from autoprune.errors import ConfigError
from autoprune.samplers import SAMPLERS, SamplerContext, distributions, make_sampler, trial_seed
from autoprune.samplers._past_trials import feasible
from autoprune.samplers._plan_sampler import random_ratios
from autoprune.study._queue import requeue_trial
from autoprune.study._storage import open_storage
from tests.samplers.search import (
    Proposals,
    Score,
    Search,
    kill_somewhere,
    shared_space_of,
    space_of,
    upside_down,
    waves,
)

BLIND = {"random", "importance", "kl"}
"""Samplers that do not look at scores."""

WHOLE_PLANS = {"evolution", "ddpg", "policy_gradient", "importance", "kl"}
"""Samplers whose proposals are the ratios of the widths that are scored."""


SLOW = pytest.mark.slow
ONE = [pytest.param(name, False, id=name) for name in SAMPLERS]
SEVERAL = [
    pytest.param(name, True, id=f"{name}-several")
    for name, spec in SAMPLERS.items()
    if spec.several_objectives
]
USUAL_FOR_SEVERAL = ("nsga2", "tpe")
FOR_SEVERAL = [
    case if case.values[0] in USUAL_FOR_SEVERAL else pytest.param(*case.values, id=case.id, marks=SLOW)
    for case in SEVERAL
]
SEVERAL_SLOWLY = [pytest.param(*case.values, id=case.id, marks=SLOW) for case in SEVERAL]

each_case = pytest.mark.parametrize(("name", "several"), ONE + FOR_SEVERAL)
"""Each sampler with one objective, and with several those that take them: fast are only the usual ones."""

each_case_slowly = pytest.mark.parametrize(("name", "several"), ONE + SEVERAL_SLOWLY)
"""The same, but cases of several objectives are slow, because they take minutes in all."""


def length(name: str) -> int:
    """Enough trials for two generations and more; those that fit something take their time for each."""
    return {"gp": 14, "ddpg": 16}.get(name, 30)


@functools.cache
def uninterrupted(name: str, variables: int, several: bool = False) -> Proposals:
    return Search(name, variables, length(name), several=several).run()


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@each_case_slowly
def test_another_seed_differs(name: str, several: bool) -> None:
    """`test_fresh_objects_for_every_trial_change_nothing` repeats a search with the same seed."""
    first = uninterrupted(name, 4, several)
    other = Search(name, 4, length(name), seed=4, several=several).run()
    same = sum(a == b for a, b in zip(first, other, strict=True))
    assert same < 0.1 * len(first)  # agents that have learnt the same may meet at one of the few good plans
    distinct = {tuple(proposal.values()) for proposal in first}
    assert len(distinct) > 0.7 * len(first)  # NSGA-II crosses equal parents to equal children now and then


@each_case
def test_resumed_equals_uninterrupted_wherever_it_was_killed(name: str, several: bool) -> None:
    killed = Search(name, 4, length(name), several=several)
    assert killed.run(kill_somewhere) == uninterrupted(name, 4, several)


def proposed_before_and_after_a_kill(search: Search) -> tuple[dict[str, float], dict[str, float]]:
    """Kill the last trial when half of its parameters are stored; its neighbour ends before it runs again."""
    search.run()
    neighbour, trial = search.ask(), search.ask()
    search.suggest(neighbour)
    search.suggest(trial, len(search.space) // 2)
    first = trial.relative_params
    search.restart()
    requeue_trial(search.study, trial.number)
    search.study.tell(neighbour, [9.0] * (1 + search.several))
    again = search.ask()
    assert again.number == trial.number
    search.suggest(again)
    return first, again.params


@each_case_slowly
def test_a_proposal_is_kept_whatever_ends_before_its_trial_runs_again(name: str, several: bool) -> None:
    """Else its first half would be of one proposal, and the rest of another."""
    search = Search(name, 4, length(name), several=several)
    first, again = proposed_before_and_after_a_kill(search)
    assert again == first


@pytest.mark.parametrize("scheme", ["sqlite", "journal"])
def test_a_proposal_of_many_variables_is_kept_in_a_file(scheme: str, tmp_path: Path) -> None:
    storage = open_storage(f"{scheme}:///{tmp_path}/study.db", create=True)
    first, again = proposed_before_and_after_a_kill(Search("evolution", 120, 4, storage=storage))
    assert again == first


def test_a_half_written_trial_of_an_earlier_version_gets_the_rest() -> None:
    """It has some of its parameters and no proposal."""
    search = Search("evolution", 4, 30)
    search.run()
    trial = search.ask()
    name, distribution = next(iter(search.space.items()))
    search.storage.set_trial_param(trial._trial_id, name, 0.5, distribution)
    search.restart()
    requeue_trial(search.study, trial.number)
    again = search.ask()
    search.suggest(again)
    assert again.params.keys() == search.space.keys()
    assert again.params[name] == 0.5


def test_a_proposal_is_kept_if_the_sampler_has_changed() -> None:
    search = Search("evolution", 4, 30)
    search.run()
    trial = search.ask()
    search.suggest(trial, 2)
    first = trial.relative_params
    search.sampler = "tpe"
    search.restart()
    requeue_trial(search.study, trial.number)
    again = search.ask()
    search.suggest(again)
    assert again.params == first


@each_case_slowly
def test_fresh_objects_for_every_trial_change_nothing(name: str, several: bool) -> None:
    """So whatever a sampler keeps in memory it also finds in the storage."""

    def restart(search: Search, n: int) -> None:
        search.restart()

    assert Search(name, 4, length(name), several=several).run(restart) == uninterrupted(name, 4, several)


@each_case
def test_all_but_the_blind_learn_from_scores(name: str, several: bool) -> None:
    other = Search(name, 4, length(name), score=upside_down, several=several).run()
    same = [a == b for a, b in zip(uninterrupted(name, 4, several), other, strict=True)]
    assert all(same) if name in BLIND else sum(same[-6:]) <= 1
    assert same[0]


@each_case_slowly
def test_all_but_the_blind_learn_from_the_scores_of_queued_trials(name: str, several: bool) -> None:
    """Warm starts are queued. Optuna calls no sampler for them, so they lack the notes of samplers."""
    rng = np.random.default_rng(0)
    space = Search(name, 4, 0, several=several).space
    queued = [{key: rng.uniform(each.low, each.high) for key, each in space.items()} for _ in range(8)]

    def run(score: Score, disturb: Callable[[Search, int], None] = lambda search, n: None) -> Proposals:
        search = Search(name, 4, length(name), score=score, several=several, queued=queued)
        return search.run(disturb)

    first = run(waves)
    assert first[:8] == queued
    other = run(lambda params: upside_down(params) if params in queued else waves(params))
    same = [a == b for a, b in zip(first, other, strict=True)]
    assert all(same) if name in BLIND else sum(same[-6:]) <= 1
    assert run(waves, kill_somewhere) == first


@pytest.mark.parametrize("name", SAMPLERS)
def test_only_those_that_say_so_learn_from_pruned_trials(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To samplers that do not learn from them, a failure that is not shown is the same in their place.

    Neither is shown as a complete trial here.
    """
    monkeypatch.setattr("autoprune.samplers._per_trial.as_worst", lambda directions, trials: {})
    monkeypatch.setattr("autoprune.samplers._per_trial.as_climbed", lambda trials, rungs: {})
    stopped, failed = (Search(name, 4, length(name), stops=stops).run() for stops in (True, False))
    assert (stopped == failed) == (not SAMPLERS[name].learns_from_pruned)


@each_case_slowly
@pytest.mark.parametrize("variables", [1, 100])
def test_one_variable_and_a_hundred(name: str, several: bool, variables: int) -> None:
    trials = 12
    search = Search(name, variables, trials, several=several)
    proposals = search.run()
    assert len(proposals) == trials
    for proposal in proposals:
        assert proposal.keys() == search.space.keys()
        assert all(search.space[key]._contains(value) for key, value in proposal.items())
    filled = search.filled(proposals)
    assert (filled <= 1).all()
    assert (filled >= 0.98).all() or variables == 1  # the widths of one layer leave gaps


@each_case
def test_every_proposal_fits_the_budget(name: str, several: bool) -> None:
    search = Search(name, 4, length(name), several=several)
    proposals = uninterrupted(name, 4, several)
    filled = search.filled(proposals)
    assert ((filled >= 0.98) & (filled <= 1)).all()
    if name in WHOLE_PLANS:
        space = search.problem
        ratios = np.array([list(proposal.values()) for proposal in proposals])
        widths = space.decode(ratios)
        np.testing.assert_array_equal(space.encode(widths), ratios)
        assert len(np.unique(widths, axis=0)) == len(widths)


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("state", [TrialState.FAIL, TrialState.PRUNED])
def test_nothing_but_failed_or_pruned_trials(name: str, state: TrialState) -> None:
    search = Search(name, 4, 10)
    for _ in range(search.trials):
        trial = search.ask()
        search.suggest(trial)
        search.study.tell(trial, state=state)
    assert len({tuple(proposal.values()) for proposal in search.proposals()}) == search.trials


@pytest.mark.parametrize("name", SAMPLERS)
def test_foreign_trials_do_no_harm(name: str) -> None:
    """Of other variables, of some of ours, of ours with other ranges: scores of our own still count."""

    def run(score: Score) -> Proposals:
        search = Search(name, 4, length(name), score=score)
        wider: dict[str, BaseDistribution] = {each: FloatDistribution(0.01, 1.0) for each in search.space}
        one: dict[str, BaseDistribution] = {"conv0": search.space["conv0"]}
        other: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 10)}
        for ranges in (other, one, wider):
            params = dict.fromkeys(ranges, 0.5)
            search.study.add_trial(create_trial(params=params, distributions=ranges, value=9.0))
        for _ in range(search.trials):
            trial = search.ask()
            search.suggest(trial)
            search.tell(trial)
        assert all(params.keys() == search.space.keys() for params in search.proposals()[3:])
        return search.proposals()[3:]

    ours = run(waves)
    same = [a == b for a, b in zip(ours, run(upside_down), strict=True)]
    assert all(same) if name in BLIND else sum(same[-6:]) <= 1
    if name != "random":
        assert ours[-4:] != drawn_blindly(name, length(name) + 3)[-4:]


def drawn_blindly(name: str, trials: int) -> Proposals:
    """Return the proposals of a sampler that never gets beyond its random first trials."""
    if name not in WHOLE_PLANS:
        return Search("random", 4, trials).run()
    space, seeds = space_of(4), [trial_seed(3, number) for number in range(trials)]
    briefs = [SamplerContext(seed=seed, search_seed=3, trials=trials, space=space) for seed in seeds]
    plans = [
        feasible(context, random_ratios(context, np.random.default_rng(context.seed))) for context in briefs
    ]
    names = [variable.name for variable in space.variables]
    return [dict(zip(names, plan.tolist(), strict=True)) for plan in plans]


@pytest.mark.parametrize("name", ["evolution", "ddpg"])
def test_the_blind_control_is_the_fallback_of_a_sampler(name: str) -> None:
    assert uninterrupted(name, 4)[:3] == drawn_blindly(name, 3)


def test_parameters_of_no_space_are_drawn_each_from_a_stream_of_its_own() -> None:
    """Also if their names end alike."""

    def draw(number: int) -> list[float]:
        search = Search("random", 1, 2)
        asked = [search.ask() for _ in range(number + 1)][number]
        return [asked.suggest_float(name, 0.0, 1.0) for name in ("adam_rate", "sgd_rate")]

    drawn = draw(0)
    assert draw(0) == drawn
    assert len({*drawn, *draw(1)}) == 4


@pytest.mark.parametrize("name", SAMPLERS)
def test_trials_that_were_queued_with_no_finite_ratio_do_no_harm(name: str) -> None:
    """One of them runs on, one has failed."""
    search = Search(name, 4, length(name), queued=[{"conv0": math.inf}] * 2)
    for state in (TrialState.RUNNING, TrialState.FAIL):
        trial = search.ask()
        with pytest.warns(UserWarning, match="out of range"):
            search.suggest(trial)
        if state.is_finished():
            search.study.tell(trial, state=state)
    for _ in range(search.trials):
        trial = search.ask()
        search.suggest(trial)
        search.tell(trial)
    filled = search.filled(search.proposals()[2:])
    assert ((filled >= 0.98) & (filled <= 1)).all()


@pytest.mark.parametrize(
    ("name", "several"), [case for case in ONE + SEVERAL_SLOWLY if not BLIND & {*case.values}]
)
def test_failures_are_not_sought(name: str, several: bool) -> None:
    """Whatever keeps much of the first layer fails, and scores rise towards there."""
    search = Search(name, 4, 40, several=several, score=lambda params: 9 * params["conv0"])
    failed = []
    for _ in range(search.trials):
        trial = search.ask()
        search.suggest(trial)
        failed.append(trial.params["conv0"] > 0.7)
        if failed[-1]:
            search.study.tell(trial, state=TrialState.FAIL)
        else:
            search.study.tell(trial, search.values(trial.params))
    assert any(failed)
    assert sum(failed[-20:]) < 15  # 19 if Optuna's own GP and TPE are not shown them


@functools.cache
def plans_on_a_grid(several: bool) -> set[bytes]:
    """Return the plans that a fine grid of two keep ratios meets."""
    space = shared_space_of(2) if several else space_of(2)
    ranges = distributions(space.variables).values()
    grid = np.array(np.meshgrid(*[np.linspace(each.low, each.high, 60) for each in ranges]))
    return {row.tobytes() for row in space.decode(grid.reshape(len(ranges), -1).T)}


@each_case_slowly
def test_no_plan_is_proposed_twice_while_there_are_others(name: str, several: bool) -> None:
    """Two variables of few widths: about as many plans as trials."""
    search = Search(name, 2, 24, several=several)
    ratios = np.array([list(proposal.values()) for proposal in search.run()])
    space, found = search.problem, plans_on_a_grid(several)
    tried = {row.tobytes() for row in space.decode(ratios)}
    assert space.plans is not None
    plans = {row.tobytes() for row in space.plans}
    # A grid over the share of the budget as well is too coarse to meet all plans.
    assert found <= plans if several else found == plans
    assert tried <= plans
    assert len(tried) == min(len(plans), 24)


@pytest.mark.parametrize("name", SAMPLERS)
def test_several_running_trials_get_different_proposals(name: str) -> None:
    search = Search(name, 3, length(name))
    search.run()
    open_trials = [search.ask() for _ in range(3)]
    for trial in open_trials:
        search.suggest(trial)
    ratios = np.array([list(trial.params.values()) for trial in open_trials])
    assert len(np.unique(search.problem.decode(ratios), axis=0)) == 3


@pytest.mark.parametrize("name", sorted(WHOLE_PLANS))
def test_global_random_states_are_left_alone(name: str) -> None:
    def states() -> tuple[bytes, str]:
        return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state())

    before = states()
    Search(name, 3, 12).run()
    assert states() == before


def test_seeds_of_trials_differ() -> None:
    seeds = {trial_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000


def test_unknown_samplers_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'search\.sampler: unknown name "tpee"\. Did you mean "tpe"'):
        make_sampler("tpee", seed=0, trials=10, space=space_of(1))
