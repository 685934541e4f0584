"""The actor-critic of AMC: an agent walks through the variables and chooses one keep ratio after the other.

    sampler = make_ddpg(SamplerContext(seed=7, search_seed=0, trials=60, space=space, shapes=prunable.shapes))

The agent is trained on the finished trials in the order in which they finished, a fixed number of updates
after each. `learning` keeps it between trials, so that a trial costs the updates of one trial; a process that
resumes replays all of them once and arrives at the same weights, bit for bit on the same machine.
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
"""Updates after each finished trial: so many a variable, up to a limit, which bounds a proposal's time."""


@dataclass(eq=False)
class AgentLearner:
    """An agent, and how it learns.

    Attributes:
        walk: replays plans.
        agent: learns from them.
        warm_up: so many episodes pass, less one, before the first updates.
        updates: after each episode from then on.
        episodes: absorbed so far.
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

    One trial is one episode, one variable one step; tied groups are one step with the cost of all. A state
    holds index, channels, inputs, kernel, cost, cost reduced, cost left and the last action, each in [0, 1];
    an action is bounded so that later variables can still meet the budget, from above (the paper's algorithm
    1) and from below. The first episodes are random, then truncated normal noise decays by a constant factor
    an episode. Discount 1; the reward is the score less a moving average.

    Departs from the paper, for tens of trials in place of hundreds and any score in place of accuracy: an
    action says how much more or less a variable keeps than its even share of the budget (see `Walk`), in
    place of the keep ratio itself; hidden layers of 64 units, not 300; noise of 0.3 at first, not 0.5, and
    of 0.05 at the search's last trial; each step is rewarded with its share of the episode's reward, which
    keeps values on one scale; rewards are divided by their standard deviation; the actor's squared logits
    are penalised, so that its sigmoid does not saturate at the ends; several updates a step; rates of 1e-3
    and 3e-3, and 0.05 of the weights into the slow copies (the authors' code: 1e-4, 1e-3 and 0.01); all
    episodes are replayed, not the last 100. Stride and map size are not in the state: the cost stands for
    them. The agent learns from the actions as the budget changed them, and trials that others proposed
    (warm starts) are episodes too. If the walk ends in a plan that was tried already, it begins again, each
    time with a quarter of the noise more.

    The paper gives it 400 episodes. In searches of 60 trials, warm starts among them, "gp", "tpe" and
    "evolution" came further in all three settings of experiments/search_efficiency (table.md, means of three
    seeds), and "policy_gradient" in two of them.

    Reference: He et al., "AMC: AutoML for Model Compression and Acceleration on Mobile Devices", 2018,
    section 3 and algorithm 1; Lillicrap et al., "Continuous Control with Deep Reinforcement Learning", 2016.
    """
    return PlanSampler(context, _propose)


def warm_up(context: SamplerContext) -> int:
    """Return how many episodes are random; a fifth of the trials, 5 to 100 (the paper: 100 of 400)."""
    return min(100, max(5, context.trials // 5))


def learner(context: SamplerContext, history: History) -> AgentLearner:
    """Return the learner that has absorbed the whole history."""

    def make() -> AgentLearner:
        updates = min(MOST_UPDATES, UPDATES * context.variables)
        return AgentLearner(Walk(context), Agent(context.search_seed), warm_up(context), updates)

    return learnt(context, history.outcomes, "ddpg", make)


def noise_after(context: SamplerContext, episodes: int) -> float:
    """Return the exploration's standard deviation after so many finished episodes."""
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
    low, high = ndtr((0.0 - mean) / spread), ndtr((1.0 - mean) / spread)
    return float(np.clip(mean + spread * ndtri(low + rng.random() * (high - low)), 0.0, 1.0))
