"""Measure how well a cheap rung predicts an expensive one, by rank correlations of their scores.

A pruned trial has no score on the later rung, and it was among the worst on the earlier one. So the
correlation covers only the better trials, whose scores are close together. It is usually lower than over all
trials.

Example:
    agreements(study.records())[0].tau            # 0.71, of the first rung and the second
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from autoprune.study import Race, TrialRecord

FEWEST_TRIALS = 5
"""Number of trials with both scores that an interval needs."""

PREDICTS = 0.3
"""Kendall's tau from which on a rung is good enough to prune by.

With this tau and normally distributed scores, pruning at the median halves the time on later rungs, and loses
the best of 50 candidates in one search of eight. Without any correlation it loses it in every other search.
"""

FEWEST_TO_WARN = 10
"""Number of trials that a warning needs. With fewer, one or two unusual pairs decide."""

_NORMAL_95 = 1.959964
"""97.5% quantile of the normal distribution."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class RungAgreement:
    """How similarly two rungs rank the trials with scores on both.

    Attributes:
        lower: name of the cheaper rung.
        upper: name of the more expensive rung.
        tau: Kendall's tau-b. It is NaN, like the next three, if all scores on the cheaper rung are equal.
        tau_interval: 95% interval of tau.
        rho: Spearman's rho.
        rho_interval: 95% interval of rho.
        trials: number of trials with both scores. A reused score counts once.
        reached: number of trials with a score on the cheaper rung. The others were pruned, failed or still
            run.
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
        """Whether all scores on the lower rung are equal, though those on the upper rung are not."""
        return math.isnan(self.tau)

    @property
    def is_clear(self) -> bool:
        """Whether tau's interval excludes 0 or lies below PREDICTS, so that the verdict is clear."""
        low, high = self.tau_interval
        return self.is_constant or low > 0 or high < PREDICTS

    @property
    def fails(self) -> bool:
        """Whether the lower rung does not predict the upper one: the interval of tau is below PREDICTS."""
        return self.trials >= FEWEST_TO_WARN and (self.is_constant or self.tau_interval[1] < PREDICTS)


def agreements(records: Iterable[TrialRecord]) -> tuple[RungAgreement, ...]:
    """Compare neighbouring rungs, then the first with the last, if enough trials have both scores.

    If all scores of a rung are equal, there is no correlation. Equal scores on the lower rung mean that it
    cannot rank trials, so the pair is returned with NaN. Equal scores on the upper rung, or of few trials,
    mean nothing, and the pair is left out.
    """
    scored = [record for record in records if record.reused is None]
    top = max((len(record.scores) for record in scored), default=0) - 1
    pairs = list(itertools.pairwise(range(top + 1)))
    if top > 1:
        pairs.append((0, top))
    found = (_compare(scored, lower, upper) for lower, upper in pairs)
    return tuple(each for each in found if each is not None)


def race_agreement(race: Race, records: Iterable[TrialRecord]) -> RungAgreement | None:
    """Compare the last rung with the first stage of a race, over its entrants, or return None for too few."""
    last = {record.number: record.scores[-1] for record in records if record.scores}
    end = race.result.ends[0]
    stages = {number: stage.score for number in race.entries if (stage := race.stage(number, end))}
    both = [(last[number].score, score) for number, score in stages.items() if number in last]
    names = (
        next((last[number].name for number in stages if number in last), ""),
        f"{end} epoch{'s' if end > 1 else ''}",
    )
    return _agreement(names, both, reached=len(both))


def _compare(records: Sequence[TrialRecord], lower: int, upper: int) -> RungAgreement | None:
    both = [record.scores for record in records if len(record.scores) > upper]
    if not both:
        return None
    names = both[0][lower].name, both[0][upper].name
    pairs = [(scores[lower].score, scores[upper].score) for scores in both]
    return _agreement(names, pairs, reached=sum(len(record.scores) > lower for record in records))


def _agreement(
    names: tuple[str, str], pairs: Sequence[tuple[float, float]], *, reached: int
) -> RungAgreement | None:
    from scipy.stats import kendalltau, spearmanr

    below, above = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    is_constant = len(set(below)) == 1
    if len(pairs) < (FEWEST_TO_WARN if is_constant else FEWEST_TRIALS) or len(set(above)) < 2:
        return None
    tau, rho = (
        math.nan if is_constant else float(measure(below, above).statistic)
        for measure in (kendalltau, spearmanr)
    )
    return RungAgreement(
        *names,
        tau=tau,
        tau_interval=tau_interval(tau, len(pairs)),
        rho=rho,
        rho_interval=rho_interval(rho, len(pairs)),
        trials=len(pairs),
        reached=reached,
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
    """Return the interval tanh(z -+ 1.96 sd) of a correlation by Fisher's transformation.

    `step` is the change of the correlation when two neighbouring ranks are swapped. It bounds z, which would
    be infinite at a correlation of 1.
    """
    z = math.atanh(max(-1 + step, min(1 - step, value)))
    reach = _NORMAL_95 * math.sqrt(variance)
    return min(math.tanh(z - reach), value), max(math.tanh(z + reach), value)
