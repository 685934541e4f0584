"""Own how well a cheap rung predicts a dear one: rank correlations over the trials that climbed both.

Before: the records of a study; after: `report.tables` says whether the cheap score can be trusted.

    agreements(study.records())[0].tau            # 0.71, of the first rung and the second

A trial that was pruned between the two has no score above, and it was among the worst below. So the
correlations are of the better part alone, where ranks are closer: as a rule lower than over all trials.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoprune.study import TrialRecord

FEWEST_TRIALS = 5
"""Trials that must have climbed both rungs: of fewer there is no interval."""

PREDICTS = 0.3
"""The tau of a rung that is worth stopping by, which is all that rungs below the last are for.

Of normally distributed scores, a bar at the median then stops the best of 50 candidates in one search of
eight, and halves what they take above; without any correlation it would in every other search.
"""

FEWEST_TO_WARN = 10
"""Trials that a warning takes: of fewer, a stray pair or two decide."""

_NORMAL_95 = 1.959964
Interval = tuple[float, float]


@dataclass(frozen=True)
class RungAgreement:
    """How alike two rungs rank the trials that climbed both.

    Attributes:
        lower: name of the cheaper rung.
        upper: name of the dearer rung.
        tau: Kendall's tau-b; NaN, as are all that follow from it, where the cheaper rung's scores are equal.
        tau_interval: its 95% interval.
        rho: Spearman's rho.
        rho_interval: its 95% interval.
        trials: how many climbed both; reused scores count once.
        reached: how many climbed the lower one; the difference was pruned, failed, or still runs.
    """

    lower: str
    upper: str
    tau: float
    tau_interval: Interval
    rho: float
    rho_interval: Interval
    trials: int
    reached: int

    @property
    def is_constant(self) -> bool:
        """Whether the lower rung gave all trials one score, though they are not equal on the upper one."""
        return math.isnan(self.tau)

    @property
    def is_clear(self) -> bool:
        """Whether tau's interval tells a rung that predicts from one that says nothing."""
        low, high = self.tau_interval
        return self.is_constant or low > 0 or high < PREDICTS

    @property
    def fails(self) -> bool:
        """Whether the lower rung does not predict the upper one: tau's whole interval lies below PREDICTS."""
        return self.trials >= FEWEST_TO_WARN and (self.is_constant or self.tau_interval[1] < PREDICTS)


def agreements(records: Iterable[TrialRecord]) -> tuple[RungAgreement, ...]:
    """Compare neighbouring rungs, then the first with the last, where enough trials climbed both.

    Where all scores of a rung are equal there is no correlation. On the upper one, or of few trials, that
    says nothing, and it is left out; on the lower one it says that the rung tells nothing.
    """
    scored = [record for record in records if record.reused is None]
    top = max((len(record.scores) for record in scored), default=0) - 1
    pairs = list(itertools.pairwise(range(top + 1)))
    if top > 1:
        pairs.append((0, top))
    found = (_compare(scored, lower, upper) for lower, upper in pairs)
    return tuple(each for each in found if each is not None)


def _compare(records: Sequence[TrialRecord], lower: int, upper: int) -> RungAgreement | None:
    from scipy.stats import kendalltau, spearmanr

    both = [record.scores for record in records if len(record.scores) > upper]
    below, above = ([scores[rung].score for scores in both] for rung in (lower, upper))
    is_constant = len(set(below)) == 1
    if len(both) < (FEWEST_TO_WARN if is_constant else FEWEST_TRIALS) or len(set(above)) < 2:
        return None
    tau, rho = (
        math.nan if is_constant else float(measure(below, above).statistic)
        for measure in (kendalltau, spearmanr)
    )
    return RungAgreement(
        both[0][lower].name,
        both[0][upper].name,
        tau=tau,
        tau_interval=tau_interval(tau, len(both)),
        rho=rho,
        rho_interval=rho_interval(rho, len(both)),
        trials=len(both),
        reached=sum(len(record.scores) > lower for record in records),
    )


def tau_interval(tau: float, trials: int) -> Interval:
    """Return the 95% interval of Kendall's tau over at least five trials.

    Reference:
        Fieller, Hartley and Pearson, "Tests for rank correlation coefficients I", Biometrika 1957: Fisher's
        z of tau has variance 0.437 / (n - 4). A tau of 1, whose z is infinite, has the next lower one's
        interval, but up to 1.
    """
    return _fisher(tau, 0.437 / (trials - 4), step=4 / (trials * (trials - 1)))


def rho_interval(rho: float, trials: int) -> Interval:
    """Return the 95% interval of Spearman's rho over at least five trials.

    Reference:
        Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and Spearman
        correlations", Psychometrika 2000: the variance of Fisher's z is (1 + rho^2 / 2) / (n - 3).
    """
    return _fisher(rho, (1 + rho**2 / 2) / (trials - 3), step=12 / (trials * (trials**2 - 1)))


def _fisher(value: float, variance: float, *, step: float) -> Interval:
    """Return tanh(z -+ 1.96 sd); `step` is how far the value moves as two neighbours change places."""
    z = math.atanh(max(-1 + step, min(1 - step, value)))
    reach = _NORMAL_95 * math.sqrt(variance)
    return min(math.tanh(z - reach), value), max(math.tanh(z + reach), value)
