"""What every sampler must do: repeat itself from the storage alone, wherever it was killed."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.storages import InMemoryStorage
from optuna.trial import Trial, TrialState, create_trial

from autoprune.errors import ConfigError
from autoprune.samplers import SAMPLERS, distributions, make_sampler, trial_seed
from autoprune.space import Budget, SearchSpace, SpaceSpec, build_space
from autoprune.study.leases import this_process
from autoprune.study.queue import claim_trial, requeue_trial, store_score
from tests.space.costs import chain, dense_macs

Proposals = list[dict[str, float]]


def length(name: str) -> int:
    """Enough trials for two generations and more; a Gaussian process takes its time for each."""
    return 14 if name == "gp" else 30


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@functools.cache
def space_of(variables: int) -> SearchSpace:
    """A chain of convolutions at half its MACs; a single layer has the stem and the classes beside it."""
    net = chain([24 + 8 * (i % 2) for i in range(variables)])
    return build_space(*net, Budget(macs=dense_macs(net) // 2), SpaceSpec(divisor=2 if variables > 2 else 1))


def statistic(space: SearchSpace) -> dict[str, float]:
    return {variable.name: float(i % 5) for i, variable in enumerate(space.variables)}


class Search:
    """A search whose process can be killed: `restart` keeps nothing but the storage."""

    def __init__(self, sampler: str, variables: int, trials: int, seed: int = 3) -> None:
        self.sampler, self.trials, self.seed = sampler, trials, seed
        self.problem = space_of(variables)
        self.space = distributions(self.problem.variables)
        self.storage = InMemoryStorage()
        optuna.create_study(study_name="s", storage=self.storage, direction="maximize")
        self.restart()

    def restart(self) -> None:
        sampler = make_sampler(
            self.sampler,
            seed=self.seed,
            trials=self.trials,
            space=self.problem,
            statistics={name: statistic(self.problem) for name in ("importance", "kl")},
        )
        self.study = optuna.load_study(study_name="s", storage=self.storage, sampler=sampler)

    def ask(self) -> Trial:
        trial = claim_trial(self.study, target=10_000, lease=this_process())
        assert trial is not None
        return trial

    def suggest(self, trial: Trial, count: int | None = None) -> None:
        for name, distribution in list(self.space.items())[:count]:
            trial.suggest_float(name, distribution.low, distribution.high)

    def tell(self, trial: Trial) -> None:
        value = sum(math.sin(5 * ratio + i) for i, ratio in enumerate(trial.params.values()))
        if trial.number % 7 == 3:
            self.study.tell(trial, state=TrialState.FAIL)
        elif trial.number % 5 == 4:
            store_score(self.study, trial.number, 1, value)
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, value)

    def run(self, disturb: Callable[[Search, int], None] = lambda search, n: None) -> Proposals:
        for n in range(self.trials):
            disturb(self, n)
            trial = self.ask()
            assert trial.number == n
            self.suggest(trial)
            self.tell(trial)
        return [trial.params for trial in self.study.get_trials(deepcopy=False)]


def kill_somewhere(search: Search, n: int) -> None:
    """Kill trial n once: before its proposal, after some of its parameters, or after its first score."""
    trial = search.ask()
    stage = n % (len(search.space) + 2)
    if stage:
        search.suggest(trial, stage)
    if stage == len(search.space) + 1:
        store_score(search.study, n, 1, 0.5)
    search.restart()
    requeue_trial(search.study, n)


@pytest.mark.parametrize("name", SAMPLERS)
def test_the_same_seed_repeats_and_another_differs(name: str) -> None:
    first, second, other = (Search(name, 4, length(name), seed).run() for seed in (3, 3, 4))
    assert first == second
    assert all(a != b for a, b in zip(first, other, strict=True))
    distinct = {tuple(proposal.values()) for proposal in first}
    assert len(distinct) > 0.7 * len(first)  # NSGA-II crosses equal parents to equal children now and then


@pytest.mark.parametrize("name", SAMPLERS)
def test_resumed_equals_uninterrupted_wherever_it_was_killed(name: str) -> None:
    assert Search(name, 4, length(name)).run(kill_somewhere) == Search(name, 4, length(name)).run()


@pytest.mark.parametrize("name", SAMPLERS)
def test_fresh_objects_for_every_trial_change_nothing(name: str) -> None:
    def restart(search: Search, n: int) -> None:
        search.restart()

    assert Search(name, 3, length(name)).run(restart) == Search(name, 3, length(name)).run()


@pytest.mark.parametrize("name", SAMPLERS)
def test_proposals_use_the_scores(name: str) -> None:
    """All but random move: few of the last proposals are those of random with the same seeds."""
    mine, control = (Search(each, 3, length(name)).run() for each in (name, "random"))
    same = sum(a == b for a, b in zip(mine[-6:], control[-6:], strict=True))
    assert same == 6 if name == "random" else same <= 1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("variables", [1, 300])
def test_one_variable_and_three_hundred(name: str, variables: int) -> None:
    trials = 12
    search = Search(name, variables, trials)
    proposals = search.run()
    assert len(proposals) == trials
    for proposal in proposals:
        assert proposal.keys() == search.space.keys()
        assert all(search.space[key]._contains(value) for key, value in proposal.items())


@pytest.mark.parametrize("name", SAMPLERS)
def test_foreign_trials_do_no_harm(name: str) -> None:
    search = Search(name, 3, length(name))
    foreign: dict[str, BaseDistribution] = {"x": FloatDistribution(0, 10)}
    search.study.add_trial(create_trial(params={"x": 2.0}, distributions=foreign, value=9.0))
    partial: dict[str, BaseDistribution] = {"conv0": search.space["conv0"]}
    search.study.add_trial(create_trial(params={"conv0": 0.5}, distributions=partial, value=9.0))
    for _ in range(search.trials):
        trial = search.ask()
        search.suggest(trial)
        search.tell(trial)
    ours = [trial.params for trial in search.study.get_trials(deepcopy=False)][2:]
    assert all(params.keys() == search.space.keys() for params in ours)
    if name != "random":
        control = Search("random", 3, length(name) + 2).run()[2:]
        assert ours[-4:] != control[-4:]


@pytest.mark.parametrize("name", SAMPLERS)
def test_enqueued_ratios_are_taken_exactly(name: str) -> None:
    search = Search(name, 3, 10)
    asked = {"conv0": 0.234567891, "conv1": 0.7, "conv2": 0.2}
    search.study.enqueue_trial(asked)
    trial = search.ask()
    search.suggest(trial)
    assert trial.params == asked
    search.tell(trial)
    assert search.ask().number == 1


@pytest.mark.parametrize("name", SAMPLERS)
def test_several_running_trials_get_different_proposals(name: str) -> None:
    search = Search(name, 3, length(name))
    search.run()
    open_trials = [search.ask() for _ in range(3)]
    for trial in open_trials:
        search.suggest(trial)
    assert len({tuple(trial.params.values()) for trial in open_trials}) == 3


def test_seeds_of_trials_differ() -> None:
    seeds = {trial_seed(seed, number) for seed in range(20) for number in range(50)}
    assert len(seeds) == 1000


def test_unknown_samplers_suggest_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r'unknown sampler \'tpee\'. Did you mean "tpe"'):
        make_sampler("tpee", seed=0, trials=10, space=space_of(1))
