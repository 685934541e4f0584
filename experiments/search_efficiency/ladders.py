"""Replays random searches with other rungs and pruners, from the scores and seconds that `rungs` measured.

For each ladder of rungs, it returns the best score on the top rung that is found in the same seconds.

Example:
    replay(measured("resnet20-12"))["25 steps, 75 steps; median"].best      # of each replay, in [0, 1]
    replay(measured("resnet20-12"), trials=53)                              # as many trials, not seconds

A replay draws candidates with replacement. All ladders get the same draws. Warm starts are left out: they
climb to the top whatever the bar.

A rung of 100 steps at once was not measured: its score is taken to be that of 25 steps and 75 more, its
seconds those without the evaluation in between.
"""

from __future__ import annotations

import bisect
import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.common import rows_of
from experiments.search_efficiency.rungs import RUNGS as MEASURED_RUNGS
from experiments.search_efficiency.setups import HERE

REPLAYS = 2000
RESAMPLES, REPLAYS_EACH = 300, 60
TRIALS = 20
"""The seconds of a replay: those in which this many trials climb to the top if there is no bar."""

FloatArray = NDArray[np.float64]

RUNGS = tuple(MEASURED_RUNGS.values())
TOP = RUNGS[-1]

EPSILON = 1e-6
"""Seconds of rounding, so that as many trials fit as are meant to."""

DEFAULT = "calibrate, 25 steps, 75 steps; median"
"""The ladder of a search that names neither rungs nor pruner."""


@dataclass(frozen=True)
class Ladder:
    """Which rungs have a bar.

    Attributes:
        rungs: those below the top that are evaluated. Each has a bar.
        share: of the trials there before that a trial must be above.
        startup: trials on a rung that its bar does not stop.
    """

    rungs: tuple[str, ...] = ()
    share: float = 0.5
    startup: int = 5


LADDERS = {
    "100 steps; no bar": Ladder(),
    "calibrate, 100 steps; median": Ladder(("calibrate",)),
    DEFAULT: Ladder(("calibrate", "steps_25")),
    "25 steps, 75 steps; median": Ladder(("steps_25",)),
    "25 steps, 75 steps; best quarter": Ladder(("steps_25",), share=0.75, startup=8),
}
"""Shares and start-ups as under `search.pruner` "median" and "percentile"."""


@dataclass(frozen=True)
class Measured:
    """What the sampler's candidates of a setup got.

    Attributes:
        scores: {rung: score of each candidate}.
        seconds: {rung: typical seconds of it}, the evaluation included.
        evaluation: seconds of one evaluation, of those.
    """

    scores: dict[str, FloatArray]
    seconds: dict[str, float]
    evaluation: float


@dataclass(frozen=True)
class Outcome:
    """The results of replays of a ladder.

    Attributes:
        best: the best score on the last rung, of each replay.
        trials: mean number of trials.
        climbed: mean number of trials that reached the last rung.
        seconds: mean seconds.
    """

    best: FloatArray
    trials: float
    climbed: float
    seconds: float


def measured(setup: str) -> Measured | None:
    """Read a setup's candidates. None where `rungs` has measured none."""
    rows = [row for row in rows_of(HERE / "rungs" / f"{setup}.csv") if row["origin"] == "sampler"]
    if not rows:
        return None
    scores = {rung: np.array([float(row[rung]) for row in rows]) for rung in RUNGS}
    seconds = {rung: float(np.median([float(row[f"{rung}_seconds"]) for row in rows])) for rung in RUNGS}
    # Both finetunes end with an evaluation: 25 s + e and 75 s + e, with s the seconds of a step.
    evaluation = max((3 * seconds["steps_25"] - seconds[TOP]) / 2, 0.0)
    return Measured(scores, seconds, evaluation)


def replay(
    found: Measured, *, trials: int | None = None, replays: int = REPLAYS, seed: int = 0
) -> dict[str, Outcome]:
    """Replay searches of this many trials, or of equal seconds. All ladders get the same draws."""
    rng = np.random.default_rng(seed)
    whole = sum(found.seconds.values()) - 2 * found.evaluation
    longest = trials or int(TRIALS * whole / found.seconds["calibrate"]) + 1
    seconds = math.inf if trials else TRIALS * whole
    draws = [rng.integers(len(found.scores["calibrate"]), size=longest).tolist() for _ in range(replays)]
    outcomes = {}
    for name, ladder in LADDERS.items():
        runs = np.array([_search(found, ladder, order, seconds) for order in draws])
        outcomes[name] = Outcome(runs[:, 0], *runs[:, 1:].mean(axis=0).tolist())
    return outcomes


def less_default(found: Measured) -> dict[str, FloatArray]:
    """Return per ladder how far the mean best score lies above the default's [resamples].

    Each time the candidates are drawn again, with replacement. So the spread is that of other samples.
    """
    rng = np.random.default_rng(0)
    count = len(found.scores[TOP])
    gaps: dict[str, list[float]] = {name: [] for name in LADDERS}
    for seed in range(RESAMPLES):
        drawn = rng.integers(count, size=count)
        scores = {rung: values[drawn] for rung, values in found.scores.items()}
        outcomes = replay(dataclasses.replace(found, scores=scores), replays=REPLAYS_EACH, seed=seed)
        for name, outcome in outcomes.items():
            gaps[name].append(float(outcome.best.mean() - outcomes[DEFAULT].best.mean()))
    return {name: np.array(values) for name, values in gaps.items()}


def _search(
    found: Measured, ladder: Ladder, order: Sequence[int], limit: float
) -> tuple[float, int, int, float]:
    """Return the best top score of one search, its trials, those that climbed to the top, and its seconds."""
    passed: dict[str, list[float]] = {rung: [] for rung in ladder.rungs}
    best, trials, climbed, seconds = 0.0, 0, 0, 0.0
    for candidate in order:
        taken, at_top = _climb(found, ladder, candidate, passed)
        if seconds + taken > limit + EPSILON:
            break
        trials, seconds = trials + 1, seconds + taken
        if at_top:
            climbed += 1
            best = max(best, float(found.scores[TOP][candidate]))
    return best, trials, climbed, seconds


def _climb(
    found: Measured, ladder: Ladder, candidate: int, passed: Mapping[str, list[float]]
) -> tuple[float, bool]:
    """Return the seconds that a trial takes, and whether it climbs to the top. Note its scores."""
    seconds = 0.0
    for rung in RUNGS:
        seconds += found.seconds[rung]
        if rung == TOP:
            break
        if rung not in ladder.rungs:
            seconds -= found.evaluation
            continue
        score, others = float(found.scores[rung][candidate]), passed[rung]
        stops = len(others) >= ladder.startup and score < _quantile(others, ladder.share)
        bisect.insort(others, score)
        if stops:
            return seconds, False
    return seconds, True


def _quantile(ordered: Sequence[float], share: float) -> float:
    """Interpolate as `numpy.quantile` does, which is slow on short lists."""
    place = share * (len(ordered) - 1)
    low = int(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (place - low) * (ordered[high] - ordered[low])
