"""Own the agent of deep deterministic policy gradient: actor, critic, their slow copies, replay buffer.

Before: `walk` turns finished trials into transitions; after: `ddpg` asks the agent for actions.

    agent = Agent(seed=0)
    agent.absorb(states, actions, score, updates=12)     # [k, STATE], [k]; one finished trial
    agent.act(state)                                     # 0.4, from 0 (cut all that can be) to 1

The agent is a function of its seed and of the sequence of what it absorbed: each trial's updates draw from a
generator seeded with its position. The networks are so small that NumPy, with gradients by hand, takes
half the time that torch's autograd does, and leaves torch's random state, threads and modes alone.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from autoprune.samplers._environment import STATE
from autoprune.support.arrays import FloatArray, IntArray

HIDDEN = 64
"""Units of each of the two hidden layers; the paper has 300, for hundreds of episodes."""

BATCH = 64
ACTOR_RATE, CRITIC_RATE = 1e-3, 3e-3
SOFT = 0.05
"""Share of the networks that moves into their slow copies at each update."""

BASELINE = 0.95
"""How much of the moving average of the scores stays at each trial."""

STEEPNESS = 0.01
"""Weight of the actor's squared logits, without which its sigmoid saturates at the ends of the range."""

MOMENTS = (0.9, 0.999)


class Network:
    """A perceptron with two hidden layers, its slow copy and its optimiser (Adam).

    Weights are drawn as in the paper on DDPG: uniform within 1 / sqrt(inputs), the last layer within 0.003.

    Attributes:
        weights: all of them, flat.
        slow: the slow copy's.
    """

    def __init__(self, inputs: int, rng: np.random.Generator, rate: float) -> None:
        self._shapes = [(inputs, HIDDEN), (HIDDEN,), (HIDDEN, HIDDEN), (HIDDEN,), (HIDDEN, 1), (1,)]
        bounds = np.repeat([inputs**-0.5, HIDDEN**-0.5, 3e-3], 2)
        parts = [rng.uniform(-b, b, shape).ravel() for b, shape in zip(bounds, self._shapes, strict=True)]
        self.weights: FloatArray = np.concatenate(parts)
        self.slow: FloatArray = self.weights.copy()
        self._rate, self._steps = rate, 0
        self._first, self._second = np.zeros_like(self.weights), np.zeros_like(self.weights)

    def __call__(self, inputs: FloatArray, *, slow: bool = False) -> FloatArray:
        """Return the outputs [n] of inputs [n, inputs], before any squashing."""
        return self._forward(inputs, self.slow if slow else self.weights)[2]

    def gradients(self, inputs: FloatArray, outer: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the gradients to the weights, flat, and to the inputs [n, inputs].

        Args:
            inputs: [n, inputs].
            outer: the loss's gradient to the outputs, [n].
        """
        first, _, second, _, last, _ = self._layers(self.weights)
        hidden1, hidden2, _ = self._forward(inputs, self.weights)
        out = outer[:, None]
        back2 = (out @ last.T) * (hidden2 > 0)
        back1 = (back2 @ second.T) * (hidden1 > 0)
        steps = ((inputs, back1), (hidden1, back2), (hidden2, out))
        parts = [part.ravel() for before, back in steps for part in (before.T @ back, back.sum(axis=0))]
        return np.concatenate(parts), back1 @ first.T

    def step(self, gradient: FloatArray) -> None:
        """Move against a gradient, and let the slow copy follow."""
        self._steps += 1
        fast, slow = MOMENTS
        self._first += (1 - fast) * (gradient - self._first)
        self._second += (1 - slow) * (gradient**2 - self._second)
        first, second = self._first / (1 - fast**self._steps), self._second / (1 - slow**self._steps)
        self.weights -= self._rate * first / (np.sqrt(second) + 1e-8)
        self.slow += SOFT * (self.weights - self.slow)

    def _forward(self, inputs: FloatArray, flat: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        first, bias1, second, bias2, last, bias3 = self._layers(flat)
        hidden1 = np.maximum(inputs @ first + bias1, 0.0)
        hidden2 = np.maximum(hidden1 @ second + bias2, 0.0)
        outputs: FloatArray = (hidden2 @ last + bias3)[:, 0]
        return hidden1, hidden2, outputs

    def _layers(self, flat: FloatArray) -> list[FloatArray]:
        ends = np.cumsum([int(np.prod(shape)) for shape in self._shapes])
        parts = np.split(flat, ends[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, self._shapes, strict=True)]


@dataclass(frozen=True, eq=False)
class _Buffer:
    """Transitions of all absorbed trials; `goes_on` is 0 where a trial ends."""

    states: FloatArray
    actions: FloatArray
    following: FloatArray
    goes_on: FloatArray
    rewards: FloatArray


class Agent:
    """Actor and critic that learn from one trial after the other.

    Attributes:
        updates: how many updates it has made in all.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng([seed, 0])
        self.updates = 0
        self._seed = seed
        self._actor = Network(STATE, rng, ACTOR_RATE)
        self._critic = Network(STATE + 1, rng, CRITIC_RATE)
        self._scores: list[float] = []
        self._baseline = 0.0
        self._states: list[FloatArray] = []
        self._actions: list[FloatArray] = []

    @property
    def weights(self) -> FloatArray:
        """All weights of actor and critic, flat."""
        return np.concatenate([self._actor.weights, self._critic.weights])

    def act(self, state: FloatArray) -> float:
        """Return the actor's action in a state, from 0 to 1."""
        return float(_sigmoid(self._actor(state[None]))[0])

    def absorb(self, states: FloatArray, actions: FloatArray, score: float, updates: int) -> None:
        """Add a finished trial to the buffer and learn from the whole buffer.

        Args:
            states: [k, STATE].
            actions: [k].
            score: of the plan; each of the k steps gets an equal part of what it is above the baseline.
            updates: how many updates follow; none in the warm-up.
        """
        self._baseline = BASELINE * self._baseline + (1 - BASELINE) * score if self._scores else score
        self._scores.append(score)
        self._states.append(states)
        self._actions.append(actions)
        if updates:
            rng = np.random.default_rng([self._seed, len(self._scores)])
            buffer = self._transitions()
            for _ in range(updates):
                self._update(buffer, rng.integers(len(buffer.actions), size=BATCH))
            self.updates += updates

    def _transitions(self) -> _Buffer:
        """Return all steps; the rewards follow from today's baseline and scale."""
        steps = len(self._actions[0])
        scale = float(np.std(self._scores)) or 1.0
        rewards = (np.array(self._scores) - self._baseline) / scale / steps
        goes_on = np.ones((len(self._scores), steps))
        goes_on[:, -1] = 0.0
        states = np.concatenate(self._states)
        return _Buffer(
            states,
            np.concatenate(self._actions),
            np.roll(states, -1, axis=0),
            goes_on.ravel(),
            np.repeat(rewards, steps),
        )

    def _update(self, buffer: _Buffer, chosen: IntArray) -> None:
        """Move the critic to its targets, then the actor up the critic; one batch of transitions."""
        states, following = buffer.states[chosen], buffer.following[chosen]
        later = self._critic(_with(following, _sigmoid(self._actor(following, slow=True))), slow=True)
        target = buffer.rewards[chosen] + buffer.goes_on[chosen] * later
        tried = _with(states, buffer.actions[chosen])
        error = 2 * (self._critic(tried) - target) / len(chosen)
        self._critic.step(self._critic.gradients(tried, error)[0])
        logits = self._actor(states)
        action = _sigmoid(logits)
        _, inner = self._critic.gradients(_with(states, action), np.full(len(chosen), -1 / len(chosen)))
        slope = inner[:, -1] * action * (1 - action) + 2 * STEEPNESS * logits / len(chosen)
        self._actor.step(self._actor.gradients(states, slope)[0])


def _with(states: FloatArray, actions: FloatArray) -> FloatArray:
    return np.concatenate([states, actions[:, None]], axis=1)


def _sigmoid(logits: FloatArray) -> FloatArray:
    squashed: FloatArray = expit(logits)
    return squashed
