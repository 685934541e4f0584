"""Weighted cuts: a variable with a lower statistic is cut more often, and plans just fit the budget."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pytest

from autoprune.errors import ConfigError
from autoprune.samplers import distributions, make_sampler
from autoprune.samplers._statistic_plans import cut_weights, draw_cuts
from tests.samplers.search import space_of, statistic

SPACE = space_of(8)


def mean_places(weights: Any, draws: int = 300) -> Any:
    rng, ladder = np.random.default_rng(0), SPACE.ladder
    return np.mean([draw_cuts(ladder, weights, rng) / ladder.top for _ in range(draws)], axis=0)


def test_weights_fall_with_the_rank_and_ties_share_theirs() -> None:
    weights = cut_weights(np.array([5.0, 1e-6, 2.0, 2.0, 1e6]))
    assert weights.sum() == pytest.approx(1)
    assert weights[1] > weights[2] == weights[3] > weights[0] > weights[4]
    assert weights[1] / weights[4] == pytest.approx(np.exp(3.0))
    np.testing.assert_allclose(cut_weights(np.array([3.0])), [1.0])


def test_what_matters_more_keeps_more() -> None:
    values = np.arange(8.0)
    kept = mean_places(cut_weights(values))
    assert (np.diff(kept) > 0).all()
    np.testing.assert_allclose(mean_places(cut_weights(-values))[::-1].argsort(), np.arange(8))


def test_equal_statistics_cut_alike() -> None:
    """Each is the mean of 300 draws whose spread is 0.15: four standard errors are 0.035."""
    kept = mean_places(cut_weights(np.ones(8)))
    assert kept.max() - kept.min() < 0.05


def test_the_first_cuts_fall_as_the_weights_say() -> None:
    """A budget that one cut meets: its variable is drawn with probability weight x levels."""
    groups_space = space_of(4)
    ladder, weights = groups_space.ladder, np.array([0.1, 0.2, 0.3, 0.4])
    usage = ladder.usage

    class OneCut:
        top: Any = ladder.top

        @staticmethod
        def usage(levels: Any) -> Any:
            return np.where((levels == ladder.top).all(axis=1), 2.0, 0.5 * usage(levels))

    one_cut: Any = OneCut
    rng, counts = np.random.default_rng(0), np.zeros(4)
    for _ in range(4000):
        counts += ladder.top - draw_cuts(one_cut, weights, rng)
    expected = weights * ladder.top / (weights * ladder.top).sum()
    assert counts.sum() == 4000
    np.testing.assert_allclose(counts / 4000, expected, atol=0.032)  # four standard errors of a share of 0.4


def test_no_more_is_cut_than_the_budget_takes() -> None:
    rng, ladder = np.random.default_rng(0), SPACE.ladder
    for _ in range(50):
        levels = draw_cuts(ladder, cut_weights(np.arange(8.0)), rng)
        assert ladder.usage(levels[None])[0] <= 1
        one_back = np.minimum(levels + np.eye(8, dtype=np.int64), ladder.top)
        assert ladder.usage(one_back).max() > 1


@pytest.mark.parametrize("name", ["importance", "kl"])
def test_a_missing_statistic_is_refused_before_the_search(name: str) -> None:
    other = {"kl": "importance", "importance": "kl"}[name]
    with pytest.raises(ConfigError, match=rf'"{name}" draws by the statistic .* none is stored'):
        make_sampler(name, seed=0, trials=10, space=SPACE, statistics={other: statistic(SPACE)})
    part = {key: value for key, value in statistic(SPACE).items() if key != "conv2"}
    for table in (part, {**part, "conv2": float("nan")}):
        with pytest.raises(ConfigError, match=r"no finite value for conv2\."):
            make_sampler(name, seed=0, trials=10, space=SPACE, statistics={name: table})


def test_each_row_draws_by_its_own_statistic() -> None:
    up = {variable.name: float(i) for i, variable in enumerate(SPACE.variables)}
    down = {name: -value for name, value in up.items()}
    told = {"importance": up, "kl": down}
    for name, sign in (("importance", 1), ("kl", -1)):
        sampler = make_sampler(name, seed=0, trials=9, space=SPACE, statistics=told)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(sampler=sampler)
        plans = [list(study.ask(dict(distributions(SPACE.variables))).params.values()) for _ in range(30)]
        slope = np.polyfit(np.arange(8), np.mean(plans, axis=0), 1)[0]
        assert sign * slope > 0.02
