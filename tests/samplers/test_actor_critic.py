"""The agent: gradients against differences, and that it learns what it is rewarded for."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.samplers._actor_critic import BASELINE, SOFT, Agent, Network
from autoprune.samplers._environment import STATE


def test_gradients_equal_differences() -> None:
    rng = np.random.default_rng(0)
    network = Network(STATE, rng, 1e-3)
    network.weights += 0.1 * rng.normal(size=network.weights.shape)
    inputs, outer = rng.normal(size=(5, STATE)), rng.normal(size=5)
    to_weights, to_inputs = network.gradients(inputs, outer)

    def total() -> float:
        return float(network(inputs) @ outer)

    for position in (*rng.integers(len(network.weights), size=40), -1):
        before = network.weights[position]
        values = []
        for change in (1e-5, -1e-5):
            network.weights[position] = before + change
            values.append(total())
        network.weights[position] = before
        np.testing.assert_allclose(to_weights[position], (values[0] - values[1]) / 2e-5, atol=1e-6)
    before = total()
    inputs[2, 4] += 1e-6
    np.testing.assert_allclose(to_inputs[2, 4], (total() - before) / 1e-6, atol=1e-4)


@pytest.mark.parametrize("best", [0.2, 0.8])
def test_the_actor_finds_the_action_that_is_rewarded(best: float) -> None:
    agent, rng = Agent(seed=1), np.random.default_rng(2)
    state = np.full(STATE, 0.5)
    for episode in range(80):
        action = rng.random(1)
        agent.absorb(state[None], action, -float((action[0] - best) ** 2), updates=0 if episode < 10 else 16)
    assert abs(agent.act(state) - best) < 0.15  # an untrained actor says 0.5


def test_the_agent_is_a_function_of_what_it_absorbed() -> None:
    rng = np.random.default_rng(3)
    episodes = [(rng.random((3, STATE)), rng.random(3), float(rng.random())) for _ in range(6)]

    def trained(seed: int, order: list[int]) -> Agent:
        agent = Agent(seed)
        for position in order:
            agent.absorb(*episodes[position], updates=4)
        return agent

    first = trained(1, [0, 1, 2, 3, 4, 5])
    np.testing.assert_array_equal(trained(1, [0, 1, 2, 3, 4, 5]).weights, first.weights)
    assert first.updates == 24
    for other in (trained(1, [1, 0, 2, 3, 4, 5]), trained(2, [0, 1, 2, 3, 4, 5])):
        assert (other.weights != first.weights).any()


def test_a_step_leads_to_the_next_one_and_the_last_ends_its_trial() -> None:
    agent, rng = Agent(seed=0), np.random.default_rng(0)
    states, scores = rng.random((2, 3, STATE)), np.array([1.0, 3.0])
    for steps, score in zip(states, scores, strict=True):
        agent.absorb(steps, rng.random(3), float(score), updates=0)
    buffer = agent._transitions()
    np.testing.assert_array_equal(buffer.goes_on.reshape(2, 3), [[1, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(buffer.following.reshape(2, 3, STATE)[:, :2], states[:, 1:])
    baseline = BASELINE * scores[0] + (1 - BASELINE) * scores[1]
    rewards = buffer.rewards.reshape(2, 3)
    np.testing.assert_allclose(rewards.sum(axis=1), (scores - baseline) / np.std(scores))
    np.testing.assert_allclose(rewards, rewards[:, :1].repeat(3, axis=1))


def test_the_slow_copy_follows_by_its_share() -> None:
    network = Network(STATE, np.random.default_rng(0), 1e-3)
    before = network.slow.copy()
    network.step(np.ones_like(network.weights))
    np.testing.assert_allclose(network.slow - before, SOFT * (network.weights - before))
    assert (network.slow != before).all()


def test_the_first_of_two_steps_is_worth_what_both_bring() -> None:
    """Each step brings half of the score, and the actor has learnt the action that scores best."""
    agent, rng = Agent(seed=1), np.random.default_rng(2)
    states = np.stack([np.full(STATE, 0.2), np.full(STATE, 0.8)])
    for episode in range(120):
        action = rng.random()
        agent.absorb(states, np.full(2, action), float(action), updates=0 if episode < 10 else 16)
    assert min(agent.act(state) for state in states) > 0.8
    first, last = agent._critic(np.column_stack([states, [1.0, 1.0]]))
    assert last > 0.3
    assert 1.5 < first / last < 2.5
