"""The agent of deep deterministic policy gradient: an actor, a critic, their slow copies and a replay buffer.

Example:
    agent = Agent(seed=0)
    agent.absorb(states, actions, score, updates=12)     # [k, STATE], [k]: one finished trial
    agent.act(state)                                     # 0.4, from 0 (the narrowest allowed) to 1

The agent is a function of its seed and of the sequence of trials that it absorbed. It computes in float64 on
one CPU thread and draws from generators of its own, so torch's random state is left alone.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autoprune.samplers._environment import STATE
from autoprune.support.arrays import FloatArray
from autoprune.support.threads import cpu_threads

HIDDEN = 64
"""Units of each of the two hidden layers. The paper has 300, for hundreds of episodes."""

BATCH = 64
ACTOR_RATE, CRITIC_RATE = 1e-3, 3e-3
SOFT = 0.05
"""Share of the weights that moves into the slow copies at each update."""

BASELINE = 0.95
"""Decay of the moving average of the scores, once a trial."""

STEEPNESS = 0.01
"""Weight of the actor's squared logits, without which its sigmoid saturates at the ends of the range."""


@dataclass(frozen=True, eq=False)
class _Buffer:
    """Transitions of all absorbed trials. `goes_on` is 0 at the last step of a trial, and 1 at all others."""

    states: Tensor
    actions: Tensor
    following: Tensor
    goes_on: Tensor
    rewards: Tensor


class Agent:
    """Actor and critic that learn from one trial after the other.

    Attributes:
        actor: from states [n, STATE] to the logits [n] of actions.
        critic: from states and actions [n, STATE + 1] to values [n].
        updates: number of updates so far.
    """

    def __init__(self, seed: int) -> None:
        generator = torch.Generator("cpu").manual_seed(_mixed(seed, 0))
        self.updates = 0
        self._seed = seed
        self.actor, self.critic = _perceptron(STATE, generator), _perceptron(STATE + 1, generator)
        self._slow_actor, self._slow_critic = copy.deepcopy(self.actor), copy.deepcopy(self.critic)
        self._actor_optimizer = torch.optim.Adam(self.actor.parameters(), ACTOR_RATE, fused=True)
        self._critic_optimizer = torch.optim.Adam(self.critic.parameters(), CRITIC_RATE, fused=True)
        self._scores: list[float] = []
        self._baseline = 0.0
        self._states: list[FloatArray] = []
        self._actions: list[FloatArray] = []

    def act(self, state: FloatArray) -> float:
        """Return the actor's action in a state, from 0 to 1."""
        with torch.no_grad(), cpu_threads(1):
            return float(self.actor(torch.from_numpy(state[None])).sigmoid())

    def absorb(self, states: FloatArray, actions: FloatArray, score: float, updates: int) -> None:
        """Add a finished trial to the buffer and learn from the whole buffer.

        Args:
            states: [k, STATE].
            actions: [k].
            score: of the plan. Each of the k steps gets an equal part of its distance to the baseline.
            updates: number of updates that follow, 0 in the warm-up.
        """
        self._baseline = BASELINE * self._baseline + (1 - BASELINE) * score if self._scores else score
        self._scores.append(score)
        self._states.append(states)
        self._actions.append(actions)
        if not updates:
            return
        generator = torch.Generator("cpu").manual_seed(_mixed(self._seed, len(self._scores)))
        buffer = self._transitions()
        with torch.enable_grad(), cpu_threads(1):
            for chosen in torch.randint(len(buffer.actions), (updates, BATCH), generator=generator):
                self._update(buffer, chosen)
        self.updates += updates

    def _transitions(self) -> _Buffer:
        """Return the steps of all trials, with rewards from the present baseline and scale."""
        # Rewards of old trials change with the baseline and the scale, so they are computed again each time.
        steps = len(self._actions[0])
        scale = float(np.std(self._scores)) or 1.0
        rewards = (np.array(self._scores) - self._baseline) / scale / steps
        goes_on = np.ones((len(self._scores), steps))
        goes_on[:, -1] = 0.0
        states = np.concatenate(self._states)
        parts = (
            states,
            np.concatenate(self._actions),
            np.roll(states, -1, axis=0),  # the next state; that of a last step is unused, as goes_on is 0
            goes_on.ravel(),
            np.repeat(rewards, steps),
        )
        return _Buffer(*map(torch.from_numpy, parts))

    def _update(self, buffer: _Buffer, chosen: Tensor) -> None:
        """Update the critic, then the actor, on one batch of transitions."""
        states, following = buffer.states[chosen], buffer.following[chosen]
        with torch.no_grad():
            later = self._slow_critic(_with(following, self._slow_actor(following).sigmoid()))
        target = buffer.rewards[chosen] + buffer.goes_on[chosen] * later
        value = self.critic(_with(states, buffer.actions[chosen]))
        _step(self._critic_optimizer, nn.functional.mse_loss(value, target))
        logits = self.actor(states)
        value = self.critic(_with(states, logits.sigmoid()))
        _step(self._actor_optimizer, STEEPNESS * logits.square().mean() - value.mean())
        # The slow copies give the targets above. Without the delay, the critic would chase its own errors.
        for slow, fast in ((self._slow_critic, self.critic), (self._slow_actor, self.actor)):
            with torch.no_grad():
                torch._foreach_lerp_(list(slow.parameters()), list(fast.parameters()), SOFT)


def _perceptron(inputs: int, generator: torch.Generator) -> nn.Sequential:
    """Make a network with two hidden layers and one output.

    Weights are drawn as in the paper on DDPG: uniform within 1 / sqrt(inputs), the last layer within 0.003.
    """
    network = nn.Sequential()
    for before, after, bound in (
        (inputs, HIDDEN, inputs**-0.5),
        (HIDDEN, HIDDEN, HIDDEN**-0.5),
        (HIDDEN, 1, 3e-3),
    ):
        layer = nn.Linear(before, after, dtype=torch.float64, device="meta").to_empty(device="cpu")
        for parameter in layer.parameters():
            nn.init.uniform_(parameter, -bound, bound, generator=generator)
        network.extend([layer, nn.ReLU()])
    network[-1] = nn.Flatten(0)
    return network


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    torch.autograd.backward(loss)
    optimizer.step()


def _with(states: Tensor, actions: Tensor) -> Tensor:
    return torch.column_stack([states, actions])


def _mixed(seed: int, trial: int) -> int:
    """Mix the search's seed and a trial's position into one seed of 32 bits, which any generator takes."""
    return int(np.random.SeedSequence([seed, trial]).generate_state(1)[0])
