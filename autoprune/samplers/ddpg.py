"""The actor-critic of AMC: an agent walks through the variables and chooses one keep ratio after the other.

Example:
    sampler = make_ddpg(SamplerContext(seed=7, search_seed=0, trials=60, space=space, shapes=prunable.shapes))

The agent is trained on the complete trials in the order in which they finished, with a fixed number of
updates after each. `_learner_memory` keeps the agent between trials, so that a proposal costs the updates of
one trial. A resumed process replays all trials once and gets the same weights, bit for bit on the same
machine.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from optuna.samplers import BaseSampler
from scipy.special import ndtr, ndtri

from autoprune.samplers._actor_critic import Agent
from autoprune.samplers._context import SamplerContext
from autoprune.samplers._environment import Walk
from autoprune.samplers._learner_memory import learnt
from autoprune.samplers._past_trials import History, Outcome
from autoprune.samplers._plan_sampler import PlanSampler, random_ratios
from autoprune.support.arrays import FloatArray

FIRST_NOISE, LAST_NOISE = 0.3, 0.05
"""Standard deviation of the noise on actions from 0 to 1, after the warm-up and at the last trial."""

UPDATES = 4
MOST_UPDATES = 64
"""Updates after each finished trial: 4 a variable, at most 64, which bounds the time of a proposal."""


@dataclass(eq=False)
class AgentLearner:
    """An agent, and how it learns.

    Attributes:
        walk: replays plans.
        agent: learns from them.
        warm_up: number of the episode after which the first updates follow.
        updates: number of updates after that episode and each later one.
        episodes: number of episodes absorbed so far.
    """

    walk: Walk
    agent: Agent
    warm_up: int
    updates: int
    episodes: int = 0

    def absorb(self, outcome: Outcome) -> None:
        """Replay a finished trial and learn from it."""
        actions, states = self.walk.replay(outcome.ratios)
        self.episodes += 1
        updates = self.updates if self.episodes >= self.warm_up else 0
        self.agent.absorb(states, actions, outcome.score, updates)


def make_ddpg(context: SamplerContext) -> BaseSampler:
    """Make the layer-by-layer actor-critic.

    One trial is one episode, and one variable is one step. Tied groups are one step with the cost of all. A
    state holds index, channels, input channels, kernel, cost, cost reduced, cost left and the last action,
    each in [0, 1]. An action is bounded so that later variables can still fill the budget without exceeding
    it. The first episodes are random. After them, truncated normal noise decays by a constant factor an
    episode. The discount is 1, and the reward is the score less a moving average.

    In searches of 60 trials, warm starts among them, "gp", "tpe" and "evolution" gave better results in all
    three settings of experiments/search_efficiency. "policy_gradient" did in two of them (table.md, means of
    three seeds). The paper has 400 episodes.

    Reference: He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", 2018,
    section 3 and algorithm 1, and Lillicrap et al., "Continuous Control with Deep Reinforcement Learning",
    2016. Differences from the first paper suit tens of trials and any unit of the score:

    - An action is not the keep ratio, but how much more or less than its even share of the budget a variable
      keeps (see `Walk`). It is bounded from below too, not from above alone.
    - Stride and map size are not in the state, since the cost depends on them.
    - Hidden layers have 64 units, not 300. Noise begins at 0.3, not at 0.5, and is 0.05 at the last trial.
    - Each step gets an equal share of the episode's reward, which keeps values on one scale. Rewards are
      divided by their standard deviation.
    - The actor's squared logits are penalised, so that its sigmoid does not saturate at the ends.
    - There are several updates a step, with rates of 1e-3 and 3e-3, and 0.05 of the weights move into the
      slow copies (in the authors' code 1e-4, 1e-3 and 0.01).
    - All episodes are replayed, not the last 100. The agent learns from actions as the budget changed them.
      Trials that it did not propose (warm starts) are episodes too.
    - If the walk ends in a plan that was tried, it begins again, each time with a quarter more of the noise.
    """
    return PlanSampler(context, _propose)


def warm_up(context: SamplerContext) -> int:
    """Return the number of random episodes: a fifth of the trials, 5 to 100 (in the paper 100 of 400)."""
    return min(100, max(5, context.trials // 5))


def learner(context: SamplerContext, history: History) -> AgentLearner:
    """Return the learner that has absorbed the whole history."""

    def make() -> AgentLearner:
        updates = min(MOST_UPDATES, UPDATES * context.variables)
        return AgentLearner(Walk(context), Agent(context.search_seed), warm_up(context), updates)

    return learnt(context, history.outcomes, "ddpg", make)


def noise_after(context: SamplerContext, episodes: int) -> float:
    """Return the standard deviation of the exploration noise after a number of finished episodes."""
    span = max(1, context.trials - warm_up(context))
    passed = min(1.0, max(0, episodes - warm_up(context)) / span)
    return float(FIRST_NOISE * (LAST_NOISE / FIRST_NOISE) ** passed)


def _propose(context: SamplerContext, history: History, rng: np.random.Generator, attempt: int) -> FloatArray:
    if len(history.outcomes) < warm_up(context):
        return random_ratios(context, rng)
    mine = learner(context, history)
    noise = noise_after(context, len(history.outcomes)) * (1 + attempt / 4)
    levels, _ = mine.walk.go(lambda state: truncated_normal(mine.agent.act(state), noise, rng))
    ratios: FloatArray = context.space.ladder.ratios(levels[None])[0]
    return ratios


def truncated_normal(mean: float, spread: float, rng: np.random.Generator) -> float:
    """Draw from a normal distribution cut to [0, 1], by its inverse distribution function."""
    # Clipping a normal draw would put much weight on both ends of the range.
    low, high = ndtr((0.0 - mean) / spread), ndtr((1.0 - mean) / spread)
    return float(np.clip(mean + spread * ndtri(low + rng.random() * (high - low)), 0.0, 1.0))
