"""The actor-critic: linear work, replay bit for bit, in the order in which trials finished."""

from __future__ import annotations

import numpy as np
import optuna
import pytest

from autoprune.samplers import SamplerContext, ddpg
from autoprune.samplers._past_trials import History, Outcome
from autoprune.samplers.ddpg import UPDATES, learner, noise_after, truncated_normal, warm_up
from tests.samplers.search import Search, space_of
from tests.samplers.test_actor_critic import weights


def context(trials: int = 40) -> SamplerContext:
    return SamplerContext(seed=0, search_seed=5, trials=trials, space=space_of(2))


def history(scores: list[float]) -> History:
    ladder = space_of(2).ladder
    plans = np.random.default_rng(0).uniform(ladder.low, ladder.high, (len(scores), 2))
    return History(tuple(map(Outcome, plans, scores)), frozenset())


def test_the_work_of_200_trials_is_200_times_that_of_one() -> None:
    whole, told = history([float(np.sin(n)) for n in range(200)]), context(200)
    made = []
    for n in range(1, 201):
        made.append(learner(told, History(whole.outcomes[:n], frozenset())).agent.updates)
    assert set(np.diff(made)) == {0, 2 * UPDATES}
    assert made[-1] == (200 - warm_up(told) + 1) * 2 * UPDATES


def test_a_search_keeps_its_learner_between_trials() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search, learners = Search("ddpg", 2, 16), []
    search.run(lambda search, n: learners.append(search.wrapper.memory.get("ddpg")))
    kept = [each for each in learners if each is not None]
    assert len(kept) > 4
    assert all(each is kept[0] for each in kept)


def test_replay_gives_the_weights_of_the_uninterrupted_process() -> None:
    whole = history([float(np.sin(n)) for n in range(20)])
    kept, fresh = context(), context()
    for n in range(1, 21):
        going = learner(kept, History(whole.outcomes[:n], frozenset()))
    replayed = learner(fresh, whole)
    assert going.agent.updates == replayed.agent.updates == (20 - warm_up(kept) + 1) * 2 * UPDATES
    np.testing.assert_array_equal(weights(going.agent), weights(replayed.agent))


def test_another_order_is_absorbed_again() -> None:
    whole = history([float(n) for n in range(12)])
    swapped = History((*whole.outcomes[:9], *whole.outcomes[:8:-1]), frozenset())
    told = context()
    first = learner(told, whole)
    second = learner(told, swapped)
    assert second is not first
    np.testing.assert_array_equal(weights(second.agent), weights(learner(context(), swapped).agent))


def test_noise_decays_by_a_constant_factor_after_the_warm_up() -> None:
    told = context()
    noise = [noise_after(told, n) for n in range(41)]
    assert len(set(noise[: warm_up(told) + 1])) == 1
    ratios = np.divide(noise[warm_up(told) + 1 :], noise[warm_up(told) : -1])
    np.testing.assert_allclose(ratios, ratios[0])
    assert noise[-1] < 0.2 * noise[0]


def test_a_proposal_explores_by_the_noise_of_its_episode(monkeypatch: pytest.MonkeyPatch) -> None:
    spreads: list[float] = []

    def recorded(mean: float, spread: float, rng: np.random.Generator) -> float:
        spreads.append(spread)
        return truncated_normal(mean, spread, rng)

    monkeypatch.setattr(ddpg, "truncated_normal", recorded)
    told, whole = context(), history([float(np.sin(n)) for n in range(30)])
    for episodes in (warm_up(told), 20, 30):
        past = History(whole.outcomes[:episodes], frozenset())
        for attempt in (0, 2):
            spreads.clear()
            ddpg._propose(told, past, np.random.default_rng(0), attempt)
            assert spreads == pytest.approx([noise_after(told, episodes) * (1 + attempt / 4)] * 2)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 0.5), (0.5, 0.1), (1.0, 0.02)])
def test_truncated_noise_stays_inside_and_has_its_spread(mean: float, spread: float) -> None:
    rng = np.random.default_rng(0)
    drawn = np.array([truncated_normal(mean, spread, rng) for _ in range(2000)])
    free = mean + spread * np.random.default_rng(1).normal(size=100_000)
    expected = free[(free >= 0) & (free <= 1)]
    assert ((drawn >= 0) & (drawn <= 1)).all()
    np.testing.assert_allclose(drawn.mean(), expected.mean(), atol=5 * spread / 2000**0.5)
    np.testing.assert_allclose(drawn.std(), expected.std(), rtol=0.1)
