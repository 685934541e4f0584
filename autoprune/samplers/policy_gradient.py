"""REINFORCE: one normal distribution a variable, which moves towards plans that score above the baseline.

Example:
    sampler = make_policy_gradient(SamplerContext(seed=7, search_seed=0, trials=60, space=space))

The policy moves by one step for each complete trial, in the order in which trials finished. `_learner_memory`
keeps the policy between trials. A resumed process takes all steps once and gets the same policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from optuna.samplers import BaseSampler

from autoprune.samplers._context import SamplerContext
from autoprune.samplers._learner_memory import learnt
from autoprune.samplers._past_trials import History, Outcome, places, ratios_at
from autoprune.samplers._plan_sampler import PlanSampler
from autoprune.support.arrays import FloatArray

START_MEAN, START_SPREAD = 0.5, 0.3
"""The first policy, in places from 0 (lowest ratio) to 1 (highest ratio)."""

SMALLEST_SPREAD, LARGEST_SPREAD = 0.03, 0.5

MEAN_RATE = 0.2
SPREAD_RATE = 0.05
ENTROPY = 0.1
"""Weight of the entropy's gradient against an advantage of one standard deviation."""

BASELINE = 0.8
"""Decay of the moving average of the scores, once a trial."""

CLIP = 2.0
"""Advantages are clipped to this many standard deviations, so that one failed finetune moves little."""


@dataclass(frozen=True, eq=False)
class Policy:
    """Independent normal distributions over the places of all variables, with mean [k] and spread [k]."""

    mean: FloatArray
    spread: FloatArray


@dataclass(eq=False)
class PolicyLearner:
    """The parameters of the policy, and the sums over earlier trials that the next step needs.

    Attributes:
        context: of the search.
        mean: of the policy, [k].
        log_spread: logarithm of the policy's spread, [k].
        baseline: the moving average of the scores.
        scores: of all trials so far.
    """

    context: SamplerContext
    mean: FloatArray
    log_spread: FloatArray
    baseline: float = 0.0
    scores: list[float] = field(default_factory=list)

    def absorb(self, outcome: Outcome) -> None:
        """Move the policy towards a plan that scored above the baseline, or away from one below it."""
        if not self.scores:
            self.baseline = outcome.score
        self.scores.append(outcome.score)
        scale = float(np.std(self.scores)) or 1.0
        advantage = float(np.clip((outcome.score - self.baseline) / scale, -CLIP, CLIP))
        self.baseline += (1 - BASELINE) * (outcome.score - self.baseline)
        off = places(self.context, outcome.ratios) - self.mean
        surprise = np.clip((off / np.exp(self.log_spread)) ** 2 - 1, -1.0, 3.0)
        # The gradient of the log-probability by the mean is off / spread^2. A step in proportion to the
        # variance cancels the division, and a narrow policy does not take huge steps.
        self.mean = np.clip(self.mean + MEAN_RATE * advantage * off, 0.0, 1.0)
        # The logarithm keeps the spread positive. The entropy of a normal distribution is this logarithm plus
        # a constant, so its gradient is 1.
        moved = self.log_spread + SPREAD_RATE * (advantage * surprise + ENTROPY)
        self.log_spread = np.clip(moved, np.log(SMALLEST_SPREAD), np.log(LARGEST_SPREAD))


def make_policy_gradient(context: SamplerContext) -> BaseSampler:
    """Make the policy-gradient sampler.

    This is episodic REINFORCE with one Gaussian unit a variable, steps proportional to its variance, a moving
    average as the baseline, and an entropy bonus.

    Reference: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement
    Learning", 1992, section 6. Differs in four points:

    - The policy learns from the plan into which the budget changed its draw. It also learns from warm starts,
      as if it had proposed them.
    - Advantages are divided by the scores' standard deviation so far, since the unit of the score is not
      known, and are clipped.
    - A spread moves by ((plan - mean) / spread)^2 - 1, clipped to [-1, 3], so that one far plan moves little.
    - The mean stays in [0, 1], and the spread in [0.03, 0.5], so that the policy never stops exploring.
    """
    return PlanSampler(context, _propose)


def learn_policy(context: SamplerContext, outcomes: Sequence[Outcome]) -> Policy:
    """Return the policy after one step for each outcome, in order."""

    def make() -> PolicyLearner:
        k = context.variables
        return PolicyLearner(context, np.full(k, START_MEAN), np.full(k, np.log(START_SPREAD)))

    learner = learnt(context, outcomes, "policy_gradient", make)
    return Policy(learner.mean, np.exp(learner.log_spread))


def _propose(context: SamplerContext, history: History, rng: np.random.Generator, attempt: int) -> FloatArray:
    policy = learn_policy(context, history.outcomes)
    return ratios_at(context, rng.normal(policy.mean, policy.spread))
