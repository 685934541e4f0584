"""Own the agent of deep deterministic policy gradient: actor, critic, their slow copies, replay buffer.

Before: `walk` turns finished trials into transitions; after: `ddpg` asks the agent for actions.

    agent = Agent(seed=0)
    agent.absorb(states, actions, score, updates=12)     # [k, STATE], [k]; one finished trial
    agent.act(state)                                     # 0.4: a place in the variable's range

The agent is a function of its seed and of the sequence of what it absorbed: it draws from generators of its
own, never from torch's global one, and each trial's updates draw from a generator seeded with its position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autoprune.samplers.walk import STATE
from autoprune.space.levels import FloatArray

HIDDEN = 64
"""Units of each of the two hidden layers; the paper has 300, for hundreds of episodes."""

BATCH = 64
ACTOR_RATE, CRITIC_RATE = 3e-3, 1e-2
SOFT = 0.05
"""Share of the networks that moves into their slow copies at each update."""

BASELINE = 0.95
"""How much of the moving average of the rewards stays at each trial."""

CPU = torch.device("cpu")


@dataclass(eq=False)
class _Buffer:
    """Transitions of all absorbed trials, as flat arrays."""

    states: Tensor
    actions: Tensor
    following: Tensor
    goes_on: Tensor
    rewards: Tensor


class Network:
    """A perceptron with two hidden layers, and its optimiser.

    Weights are drawn as the reference's are: uniform within 1 / sqrt(inputs), the last layer within 0.003.
    """

    def __init__(self, inputs: int, generator: torch.Generator, rate: float) -> None:
        self.weights: list[Tensor] = []
        for rows, columns in ((HIDDEN, inputs), (HIDDEN, HIDDEN), (1, HIDDEN)):
            bound = columns**-0.5 if rows > 1 else 3e-3
            for shape in ((rows, columns), (rows,)):
                drawn = torch.rand(shape, generator=generator, device=CPU, dtype=torch.float32)
                self.weights.append(((2 * drawn - 1) * bound).requires_grad_())
        self.slow = [weight.detach().clone() for weight in self.weights]
        self._optimizer = torch.optim.Adam(self.weights, lr=rate, foreach=False)

    def __call__(self, inputs: Tensor, *, slow: bool = False) -> Tensor:
        """Return the outputs [n] of inputs [n, inputs], before any squashing."""
        first, b1, second, b2, last, b3 = self.slow if slow else self.weights
        hidden = torch.relu(torch.addmm(b1, inputs, first.t()))
        hidden = torch.relu(torch.addmm(b2, hidden, second.t()))
        return torch.addmm(b3, hidden, last.t()).squeeze(1)

    def step(self, loss: Tensor) -> None:
        """Lower the loss by one step, and let the slow copy follow."""
        gradients = torch.autograd.grad(loss, self.weights)
        for weight, gradient in zip(self.weights, gradients, strict=True):
            weight.grad = gradient
        self._optimizer.step()
        with torch.no_grad():
            for slow, weight in zip(self.slow, self.weights, strict=True):
                slow.lerp_(weight, SOFT)


class Agent:
    """Actor and critic that learn from one trial after the other.

    Attributes:
        updates: how many updates it has made in all.
    """

    def __init__(self, seed: int) -> None:
        generator = torch.Generator(device=CPU).manual_seed(seed)
        self.updates = 0
        self._seed = seed
        self._actor = Network(STATE, generator, ACTOR_RATE)
        self._critic = Network(STATE + 1, generator, CRITIC_RATE)
        self._scores: list[float] = []
        self._baseline = 0.0
        self._episodes: list[_Buffer] = []

    def act(self, state: FloatArray) -> float:
        """Return the actor's action in a state, from 0 to 1."""
        with torch.no_grad():
            inputs = torch.as_tensor(state, dtype=torch.float32, device=CPU)[None]
            return float(torch.sigmoid(self._actor(inputs))[0])

    def absorb(self, states: FloatArray, actions: FloatArray, score: float, updates: int) -> None:
        """Add a finished trial to the buffer and learn from the whole buffer.

        Args:
            states: [k, STATE].
            actions: [k].
            score: of the plan; each of the k steps gets an equal part of what it is above the baseline.
            updates: how many updates follow; none in the warm-up.
        """
        self._scores.append(score)
        first = len(self._scores) == 1
        self._baseline = score if first else BASELINE * self._baseline + (1 - BASELINE) * score
        self._episodes.append(_transitions(states, actions, score))
        if not updates:
            return
        rng = np.random.default_rng([self._seed, len(self._scores)])
        buffer = _joined(self._episodes)
        scale = float(np.std(self._scores)) or 1.0
        buffer.rewards = (buffer.rewards - self._baseline) / scale / len(actions)
        with torch.enable_grad(), torch.inference_mode(False):
            for _ in range(updates):
                chosen = torch.from_numpy(rng.integers(len(buffer.actions), size=BATCH))
                self._update(buffer, chosen)
        self.updates += updates

    def _update(self, buffer: _Buffer, chosen: Tensor) -> None:
        """Move the critic to its targets, then the actor up the critic; one batch of transitions."""
        states, following = buffer.states[chosen], buffer.following[chosen]
        with torch.no_grad():
            action = torch.sigmoid(self._actor(following, slow=True))
            later = self._critic(_with(following, action), slow=True)
            target = buffer.rewards[chosen] + buffer.goes_on[chosen] * later
        value = self._critic(_with(states, buffer.actions[chosen]))
        self._critic.step((value - target).square().mean())
        self._actor.step(-self._critic(_with(states, torch.sigmoid(self._actor(states)))).mean())


def _with(states: Tensor, actions: Tensor) -> Tensor:
    return torch.cat([states, actions[:, None]], dim=1)


def _transitions(states: FloatArray, actions: FloatArray, score: float) -> _Buffer:
    """Return the steps of one trial as transitions; the last goes nowhere."""
    seen = torch.as_tensor(states, dtype=torch.float32, device=CPU)
    goes_on = torch.ones(len(actions), device=CPU, dtype=torch.float32)
    goes_on[-1] = 0.0
    return _Buffer(
        seen,
        torch.as_tensor(actions, dtype=torch.float32, device=CPU),
        torch.roll(seen, -1, dims=0),
        goes_on,
        torch.full((len(actions),), score, device=CPU, dtype=torch.float64),
    )


def _joined(episodes: Sequence[_Buffer]) -> _Buffer:
    names = ("states", "actions", "following", "goes_on", "rewards")
    return _Buffer(*(torch.cat([getattr(episode, name) for episode in episodes]) for name in names))
