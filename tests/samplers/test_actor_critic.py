"""The agent: gradients against differences, and that it learns what it is rewarded for."""

from __future__ import annotations

import numpy as np
import pytest

from autoprune.samplers.actor_critic import Agent, Network
from autoprune.samplers.walk import STATE


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
