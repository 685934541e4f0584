"""The verdict of a search: the gain of its winner over one keep ratio for all groups, with an interval.

Both models are trained fully and evaluated on the same images, so their scores are compared image by image.

Example:
    verdict_of(race, "digits").sentence     # "The winner, trial 17, is 0.80 points (95% interval ..."
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autoprune.errors import StudyError
from autoprune.study import Race, Samples
from autoprune.support.arrays import FloatArray

Interval = tuple[float, float]


@dataclass(frozen=True)
class Verdict:
    """The comparison of a race's winner with uniform, or of uniform with the best other trial if it won.

    Attributes:
        winner: number of the trial that won.
        uniform: number of the trial with one keep ratio for all groups, or None if it did not race.
        other: number of the best trial other than uniform that trained to the end, or None if there is none.
        gain: score of `other` minus that of uniform.
        interval: 95% interval of `gain` over the draw of the images, or None if it is not known.
        is_share: whether the score is a share of hits, whose differences are printed in points.
    """

    winner: int
    uniform: int | None = None
    other: int | None = None
    gain: float = 0.0
    interval: Interval | None = None
    is_share: bool = False

    @property
    def is_clear(self) -> bool:
        """Whether the winner is above uniform by more than noise."""
        return self.winner == self.other and self.interval is not None and self.interval[0] > 0

    @property
    def sentence(self) -> str:
        """The verdict in one sentence, or in two."""
        if self.uniform is None:
            return (
                f"Trial {self.winner} won the race. No trial with one keep ratio for all groups trained to "
                'the end, so the gain of the search is not known. Is "uniform" in search.warm_starts?'
            )
        if self.other is None:
            return f"Uniform, trial {self.uniform}, won the race: take it. No other trial trained to the end."
        side = "above" if self.gain >= 0 else "below"
        if self.interval is None:
            return (
                f"Trial {self.other} is {self._amount()} {side} uniform, trial {self.uniform}, at the same "
                "budget. No interval is known, since the metric is not known to be a mean over images."
            )
        if self.is_clear:
            return f"The winner, trial {self.winner}, is {self._amount()} above uniform at the same budget."
        opening = "is as good within noise here" if self.interval[1] >= 0 else "is the best here"
        which = "The winner, trial" if self.winner == self.other else "The best other one, trial"
        return (
            f"Uniform, trial {self.uniform}, {opening}: take it. {which} {self.other}, is {self._amount()} "
            f"{side} it at the same budget."
        )

    def _amount(self) -> str:
        """Return the size of the gain, with its interval in the same direction."""
        sign, scale = (1 if self.gain >= 0 else -1), (100 if self.is_share else 1)
        form = ".2f" if self.is_share else ".4g"
        text = f"{abs(scale * self.gain):{form}}{' points' if self.is_share else ''}"
        if self.interval is None:
            return text
        low, high = sorted(sign * scale * end for end in self.interval)
        return f"{text} (95% interval {low:{form}} to {high:{form}})"


def verdict_of(race: Race, study: str) -> Verdict:
    """Compare a race's winner with uniform.

    Raises:
        StudyError: the stored values of the samples are damaged.
    """
    winner, uniform = race.result.winner, race.result.uniform
    end = race.result.ends[-1]
    finals = {number: stage.score for number in race.entries if (stage := race.stage(number, end))}
    others = [number for number in finals if number != uniform and race.failure(number) is None]
    if uniform is None or not others:
        return Verdict(winner, uniform)
    other = max(others, key=lambda number: (finals[number], -number))
    gain = finals[other] - finals[uniform]
    pair = (race.entries[other].samples, race.entries[uniform].samples)
    is_share = all(samples is not None and samples.kind == "bits" for samples in pair)
    return Verdict(winner, uniform, other, gain, _interval(*pair, study=study), is_share)


def _interval(first: Samples | None, second: Samples | None, *, study: str) -> Interval | None:
    if first is None or second is None or first.count != second.count:
        return None
    try:
        return paired_interval(first.values(), second.values())
    except ValueError as error:
        raise StudyError(
            f"{study}: the samples of a race are damaged: {error}. Restore the storage."
        ) from error


def paired_interval(first: FloatArray, second: FloatArray) -> Interval | None:
    """Return the 95% interval of the mean difference of two models' values [n] on the same images.

    For hits (0 and 1) it is the interval of McNemar's exact test. It looks at the images that only one of the
    models gets right: the number of those that the first one gets right is binomial. For other values it is
    the t interval of the differences.

    Returns:
        The interval, or None if there are fewer than two images.

    Reference:
        McNemar, "Note on the sampling error of the difference between correlated proportions", 1947.
        Clopper and Pearson, "The use of confidence or fiducial limits", Biometrika 1934.
    """
    from scipy.stats import binomtest, ttest_rel

    count = len(first)
    if count < 2:
        return None
    difference = first - second
    if np.isin([first, second], (0.0, 1.0)).all():
        gained, lost = int((difference > 0).sum()), int((difference < 0).sum())
        if gained + lost == 0:
            return 0.0, 0.0
        share = binomtest(gained, gained + lost).proportion_ci(0.95, method="exact")
        scale = (gained + lost) / count
        # The gain is (gained - lost) / count = (2 share - 1) x (gained + lost) / count.
        return float((2 * share.low - 1) * scale), float((2 * share.high - 1) * scale)
    if not difference.any():
        return 0.0, 0.0
    found = ttest_rel(first, second).confidence_interval(0.95)
    return float(found.low), float(found.high)
