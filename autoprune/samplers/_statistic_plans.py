"""Draws plans by a statistic: single levels are cut from the dense model, more often if the statistic is low.

Example:
    sampler = make_weighted(context, "kl")      # needs context.statistics["kl"] = {"conv1": 0.02, ...}
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from optuna.samplers import BaseSampler

from autoprune.errors import ConfigError
from autoprune.samplers._context import SamplerContext
from autoprune.samplers._past_trials import History
from autoprune.samplers._plan_sampler import PlanSampler
from autoprune.space import Ladder
from autoprune.support.arrays import FloatArray, IntArray

SHARPNESS = 3.0
"""The variable with the lowest statistic is cut e**3, or 20 times, as often as the one with the highest."""


def make_weighted(context: SamplerContext, statistic: str) -> BaseSampler:
    """Make the sampler that cuts a variable less often if its statistic is higher.

    Candidates are drawn at random. A statistic of the dense model gives the probabilities, and scores do not
    change them.

    Raises:
        ConfigError: the context lacks the statistic, or its value for a variable.

    Reference: Li et al., "EagleEye: Fast Sub-net Evaluation for Efficient Neural Network Pruning", 2020, for
    random candidates that are scored after BatchNorm recalibration. The paper draws a uniform keep ratio for
    each group. Here single levels are cut from the dense model until it fits the budget, so that no draw is
    rejected for its cost. The probabilities of cuts (see `cut_weights`) are not from the paper, and a plan
    that was tried is drawn again.
    """
    values = _values(context, statistic)

    def propose(
        context: SamplerContext, history: History, rng: np.random.Generator, attempt: int
    ) -> FloatArray:
        ladder = context.space.keep_ratios.ladder
        levels = draw_cuts(ladder, cut_weights(values), rng)
        return context.space.complete(ladder.ratios(levels[None])[0], rng)

    return PlanSampler(context, propose)


def cut_weights(values: FloatArray) -> FloatArray:
    """Return the probabilities [k] that the next cut falls on each variable, from their statistics [k].

    This is a softmax over minus the rank, not the value. KL divergences span decades, and one outlier would
    make all other weights nearly equal. Equal statistics have equal weights.
    """
    from scipy.stats import rankdata  # takes a while to import

    ranks = (rankdata(values) - 1) / max(1, len(values) - 1)
    weights: FloatArray = np.exp(-SHARPNESS * ranks)
    weights /= weights.sum()
    return weights


def draw_cuts(ladder: Ladder, weights: FloatArray, rng: np.random.Generator) -> IntArray:
    """Draw single cuts until the plan fits the budget, and return its levels [k].

    Each cut lowers one variable by one level. Among those that are not at their lowest level, the probability
    is proportional to the weight times the number of levels. The number of levels is a factor so that fine
    and coarse groups shrink alike.
    """
    # The cuts of a variable are the events of a Poisson process with that rate. So all cuts are drawn at
    # once and sorted by time, and bisection finds how many of them the budget needs.
    variable = np.repeat(np.arange(len(ladder.top)), ladder.top)
    waits = rng.exponential(size=len(variable)) / (weights * ladder.top)[variable]
    starts = np.concatenate([[0], np.cumsum(ladder.top)[:-1]])
    # The waits of a variable add up to the times of its cuts, from zero for each variable.
    before = np.cumsum(waits) - waits
    times = before + waits - before[starts][variable]
    order = variable[np.argsort(times, kind="stable")]

    def after(cuts: int) -> IntArray:
        return ladder.top - np.bincount(order[:cuts], minlength=len(ladder.top))

    fits, over = len(order), -1
    while fits - over > 1:
        middle = math.ceil((fits + over) / 2)
        inside = ladder.usage(after(middle)[None])[0] <= 1.0
        fits, over = (middle, over) if inside else (fits, middle)
    return after(fits)


def _values(context: SamplerContext, statistic: str) -> FloatArray:
    table: Mapping[str, float] = context.statistics.get(statistic, {})
    names = [variable.name for variable in context.space.keep_ratios.variables]
    missing = [name for name in names if not math.isfinite(table.get(name, math.nan))]
    if missing:
        lacking = "none is stored" if not table else f"it has no finite value for {', '.join(missing[:3])}"
        raise ConfigError(
            f'search.sampler: "{statistic}" draws by the statistic "{statistic}" of each variable, and '
            f'{lacking}. Start a new search with this sampler, which measures it, or choose "random".'
        )
    return np.array([table[name] for name in names], dtype=np.float64)
