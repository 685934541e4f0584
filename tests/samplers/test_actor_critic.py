"""The agent: it learns the rewarded actions, and is a function of its seed and its trials."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.utils import parameters_to_vector

from autoprune.samplers._actor_critic import BASELINE, SOFT, Agent
from autoprune.samplers._environment import STATE
from autoprune.support.arrays import FloatArray


def weights(agent: Agent) -> FloatArray:
    parameters = [*agent.actor.parameters(), *agent.critic.parameters()]
    return parameters_to_vector(parameters).detach().numpy().copy()


@pytest.mark.parametrize("best", [pytest.param(0.2, marks=pytest.mark.slow), 0.8])
def test_the_actor_finds_the_action_that_is_rewarded(best: float) -> None:
    agent, rng = Agent(seed=1), np.random.default_rng(2)
    state = np.full(STATE, 0.5)
    for episode in range(80):
        action = rng.random(1)
        agent.absorb(state[None], action, -float((action[0] - best) ** 2), updates=0 if episode < 10 else 16)
    assert abs(agent.act(state) - best) < 0.15  # an untrained actor says 0.5


def test_the_agent_is_a_function_of_the_trials_it_absorbed() -> None:
    rng = np.random.default_rng(3)
    episodes = [(rng.random((3, STATE)), rng.random(3), float(rng.random())) for _ in range(6)]

    def trained(seed: int, order: list[int]) -> Agent:
        agent = Agent(seed)
        for position in order:
            agent.absorb(*episodes[position], updates=4)
        return agent

    first = trained(1, [0, 1, 2, 3, 4, 5])
    before = torch.get_rng_state()
    np.testing.assert_array_equal(weights(trained(1, [0, 1, 2, 3, 4, 5])), weights(first))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.updates == 24
    for other in (trained(1, [1, 0, 2, 3, 4, 5]), trained(2, [0, 1, 2, 3, 4, 5])):
        assert (weights(other) != weights(first)).any()


def test_a_step_leads_to_the_next_one_and_the_last_ends_its_trial() -> None:
    agent, rng = Agent(seed=0), np.random.default_rng(0)
    states, scores = rng.random((2, 3, STATE)), np.array([1.0, 3.0])
    for steps, score in zip(states, scores, strict=True):
        agent.absorb(steps, rng.random(3), float(score), updates=0)
    buffer = agent._transitions()
    np.testing.assert_array_equal(buffer.goes_on.reshape(2, 3), [[1, 1, 0], [1, 1, 0]])
    np.testing.assert_array_equal(buffer.following.reshape(2, 3, STATE)[:, :2], states[:, 1:])
    baseline = BASELINE * scores[0] + (1 - BASELINE) * scores[1]
    rewards = buffer.rewards.numpy().reshape(2, 3)
    np.testing.assert_allclose(rewards.sum(axis=1), (scores - baseline) / np.std(scores))
    np.testing.assert_allclose(rewards, rewards[:, :1].repeat(3, axis=1))


def test_the_slow_copies_follow_by_their_share() -> None:
    agent, rng = Agent(seed=0), np.random.default_rng(0)
    pairs = [(agent._slow_actor, agent.actor), (agent._slow_critic, agent.critic)]
    before = [parameters_to_vector(slow.parameters()).detach() for slow, _ in pairs]
    agent.absorb(rng.random((3, STATE)), rng.random(3), 1.0, updates=1)
    for former, (slow, fast) in zip(before, pairs, strict=True):
        now, followed = (parameters_to_vector(net.parameters()).detach() for net in (slow, fast))
        torch.testing.assert_close(now - former, SOFT * (followed - former))
        assert (now != former).any()


def test_the_first_of_two_steps_is_worth_what_both_bring() -> None:
    """Each step brings half of the score, and the actor has learnt the action that scores best."""
    agent, rng = Agent(seed=1), np.random.default_rng(2)
    states = np.stack([np.full(STATE, 0.2), np.full(STATE, 0.8)])
    for episode in range(120):
        action = rng.random()
        agent.absorb(states, np.full(2, action), float(action), updates=0 if episode < 10 else 16)
    assert min(agent.act(state) for state in states) > 0.8
    first, last = agent.critic(torch.from_numpy(np.column_stack([states, [1.0, 1.0]]))).tolist()
    assert last > 0.3
    assert 1.5 < first / last < 2.5
