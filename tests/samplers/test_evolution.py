"""Evolution: who has children, how they differ from their parents, and that it gets somewhere."""

from __future__ import annotations

import functools
import operator
from dataclasses import replace

import numpy as np
import optuna
import pytest

from autoprune.errors import ConfigError
from autoprune.samplers import EvolutionRates, SamplerContext
from autoprune.samplers._past_trials import History, Outcome, levels_of
from autoprune.samplers._plan_sampler import random_ratios
from autoprune.samplers.evolution import _mutate, _propose, settled_rates
from tests.samplers.search import Search, space_of

BRIEF = SamplerContext(seed=0, search_seed=0, trials=40, space=space_of(4))


def history(scores: list[float]) -> History:
    rng = np.random.default_rng(7)
    ladder = BRIEF.space.ladder
    plans = [ladder.ratios(rng.integers(0, ladder.top + 1)[None])[0] for _ in scores]
    return History(tuple(map(Outcome, plans, scores)), frozenset())


def child(told: SamplerContext, past: History, seed: int = 0) -> np.ndarray:
    return levels_of(told, _propose(told, past, np.random.default_rng(seed), 0))


def test_rates_follow_from_the_size_of_the_search() -> None:
    assert settled_rates(EvolutionRates(), 40, 4) == EvolutionRates(
        population=8, lifetime=24, tournament=2, crossover=0.5, mutation=0.5
    )
    large = settled_rates(EvolutionRates(), 1000, 300)
    assert large == EvolutionRates(
        population=50, lifetime=150, tournament=12, crossover=0.5, mutation=4 / 300
    )
    assert settled_rates(EvolutionRates(), 3, 4).population == 2


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        (EvolutionRates(population=40), r"search.evolution.population: got 40 in a search of 40 trials"),
        (
            EvolutionRates(population=5, tournament=6),
            r"tournament: got 6, expected at most the population",
        ),
        (EvolutionRates(population=5, lifetime=4), r"lifetime: got 4, expected at least the population, 5"),
    ],
)
def test_rates_that_breed_nothing_are_refused(rates: EvolutionRates, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        settled_rates(rates, 40, 4)


def test_trials_are_random_until_a_population_is_complete() -> None:
    past = history([1.0] * 7)
    expected = random_ratios(BRIEF, np.random.default_rng(0))
    np.testing.assert_array_equal(_propose(BRIEF, past, np.random.default_rng(0), 0), expected)
    assert (_propose(BRIEF, history([1.0] * 8), np.random.default_rng(0), 0) != expected).any()


def test_the_old_have_no_children() -> None:
    """Whatever the eleventh youngest scored, the children are the same; not so for the tenth."""
    told = replace(BRIEF, rates=EvolutionRates(lifetime=10))
    scores = [float((n + 1) % 5) for n in range(14)]
    seeds = range(20)
    first = [child(told, history(scores), seed).tolist() for seed in seeds]
    old, young = ([*scores[:n], 99.0, *scores[n + 1 :]] for n in (3, 4))
    assert [child(told, history(old), seed).tolist() for seed in seeds] == first
    assert [child(told, history(young), seed).tolist() for seed in seeds] != first


def test_the_fittest_alone_have_children() -> None:
    """A population of 2: what the third fittest is like does not matter."""
    told = replace(BRIEF, rates=EvolutionRates(population=2))
    one, other = history([1.0, 5.0, 2.0, 4.0, 0.0]), history([2.0, 5.0, 1.0, 4.0, 0.5])
    seeds = range(20)
    assert [child(told, one, seed).tolist() for seed in seeds] == [
        child(told, other, seed).tolist() for seed in seeds
    ]


def test_a_full_tournament_lets_the_best_mutate() -> None:
    told = replace(BRIEF, rates=EvolutionRates(tournament=8, crossover=0.0, mutation=1e-9))
    past = history([0.0, 3.0, 1.0, 2.0, 0.5, 0.1, 0.2, 0.3])
    best = levels_of(told, past.outcomes[1].ratios)
    for seed in range(10):
        assert np.count_nonzero(child(told, past, seed) != best) == 1


def test_crossover_takes_every_variable_from_one_of_the_parents() -> None:
    told = replace(BRIEF, rates=EvolutionRates(population=2, tournament=1, crossover=1.0, mutation=1e-9))
    past = history([1.0, 2.0])
    parents = np.stack([levels_of(told, outcome.ratios) for outcome in past.outcomes])
    mixed = 0
    for seed in range(30):
        levels = child(told, past, seed)
        from_either = (levels == parents).any(axis=0)
        assert np.count_nonzero(~from_either) <= 1
        mixed += all((levels == parents[p]).sum() >= 1 for p in (0, 1))
    assert mixed > 5


def test_without_crossover_a_child_has_one_parent() -> None:
    told = replace(BRIEF, rates=EvolutionRates(population=2, tournament=1, crossover=0.0, mutation=1e-9))
    past = history([1.0, 2.0])
    parents = np.stack([levels_of(told, outcome.ratios) for outcome in past.outcomes])
    chosen = set()
    for seed in range(30):
        off = (child(told, past, seed) != parents).sum(axis=1)
        assert off.min() == 1
        chosen.add(int(off.argmin()))
    assert chosen == {0, 1}


def test_mutation_moves_to_another_allowed_level() -> None:
    rng, top = np.random.default_rng(0), np.array([1, 2, 20, 30])
    for _ in range(200):
        levels = rng.integers(0, top + 1)
        moved = _mutate(levels, top, 1.0, 0.2, rng)
        assert (moved != levels).all()
        assert ((moved >= 0) & (moved <= top)).all()


def test_warm_starts_belong_to_the_first_population() -> None:
    """A population of 2: the third trial is a child of the better of the two, whichever that is."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    names = list(Search("evolution", 4, 10).space)
    warm = [dict(zip(names, ratios, strict=True)) for ratios in ([0.9, 0.2] * 2, [0.2, 0.9] * 2)]
    children = []
    for better in warm:
        search = Search("evolution", 4, 10, queued=warm, score=functools.partial(operator.eq, better))
        for _ in range(3):
            trial = search.ask()
            search.suggest(trial)
            search.tell(trial)
        assert search.proposals()[:2] == warm
        children.append(search.proposals()[2])
    assert children[0] != children[1]


def test_evolution_leaves_random_behind_on_a_smooth_score() -> None:
    """The last 15 of 50 trials, on a hill over the widths of 8 groups, in 3 seeds."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = space_of(8)

    def hill(params: dict[str, float]) -> float:
        plan = space.encode(space.decode(np.array(list(params.values()))))
        return -float(((plan - np.linspace(0.3, 0.9, 8)) ** 2).sum())

    def last(name: str) -> np.ndarray:
        runs = [Search(name, 8, 50, seed, score=hill).run() for seed in range(3)]
        return np.array([hill(params) for proposals in runs for params in proposals[-15:]])

    evolved, control = last("evolution"), last("random")
    assert evolved.mean() > control.mean() + 4 * control.std() / 45**0.5
