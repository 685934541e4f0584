"""Replays what a random search would have found with other rungs and bars, from what `rungs` measured.

Before: every candidate of a setup has a score and seconds on every rung; after: per ladder, the best score
on the top rung that is found in the same seconds.

    replay(measured("resnet20-12"))["25 steps, 75 steps; median"].best      # of each replay, in [0, 1]

A replay draws candidates with replacement; all ladders get the same draws. Warm starts are left out: they
climb to the top whatever the bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from experiments.common import rows_of
from experiments.search_efficiency.setups import HERE

REPLAYS = 2000
TRIALS = 20
"""The seconds of a replay: those in which so many trials climb to the top where there is no bar."""

STARTUP = 5
"""Trials that no bar stops, as under `search.pruner = "median"`."""

FloatArray = NDArray[np.float64]


RUNGS = ("calibrate", "steps_25", "steps_100")
TOP = RUNGS[-1]

EPSILON = 1e-6
"""Seconds of rounding, so that as many trials fit as are meant to."""

LADDERS: dict[str, dict[str, float]] = {
    "100 steps": {},
    "calibrate, 100 steps; median": {"calibrate": 0.5},
    "calibrate, 25 steps, 75 steps; median": {"calibrate": 0.5, "steps_25": 0.5},
    "25 steps, 75 steps; median": {"steps_25": 0.5},
    "25 steps, 75 steps; best quarter": {"steps_25": 0.75},
}
"""The bars of each: {rung: share of the trials there before that a trial must be above}. A rung without a bar
is not evaluated."""


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
    """What replays of one ladder came to: the best top score of each, trials, and those at the top."""

    best: FloatArray
    trials: float
    climbed: float


def measured(setup: str) -> Measured | None:
    """Read a setup's candidates; None where `rungs` has measured none."""
    rows = [row for row in rows_of(HERE / "rungs" / f"{setup}.csv") if row["origin"] == "sampler"]
    if not rows:
        return None
    scores = {rung: np.array([float(row[rung]) for row in rows]) for rung in RUNGS}
    seconds = {rung: float(np.median([float(row[f"{rung}_seconds"]) for row in rows])) for rung in RUNGS}
    # Both finetunes end with an evaluation: 25 s + e and 75 s + e, with s the seconds of a step.
    evaluation = max((3 * seconds["steps_25"] - seconds["steps_100"]) / 2, 0.0)
    return Measured(scores, seconds, evaluation)


def replay(found: Measured, *, replays: int = REPLAYS, seed: int = 0) -> dict[str, Outcome]:
    """Replay searches on every ladder, with the same draws for all."""
    rng = np.random.default_rng(seed)
    whole = sum(found.seconds.values()) - 2 * found.evaluation
    longest = int(TRIALS * whole / found.seconds["calibrate"]) + 1
    draws = [rng.integers(len(found.scores["calibrate"]), size=longest).tolist() for _ in range(replays)]
    outcomes = {}
    for name, bars in LADDERS.items():
        runs = [_search(found, bars, order, TRIALS * whole) for order in draws]
        best, trials, climbed = (np.array(column, dtype=float) for column in zip(*runs, strict=True))
        outcomes[name] = Outcome(best, float(trials.mean()), float(climbed.mean()))
    return outcomes


def _search(
    found: Measured, bars: Mapping[str, float], order: Sequence[int], seconds: float
) -> tuple[float, int, int]:
    """Return the best top score of one search, its trials, and how many of them climbed to the top."""
    passed: dict[str, list[float]] = {rung: [] for rung in bars}
    best, trials, climbed = 0.0, 0, 0
    for candidate in order:
        taken, at_top = _climb(found, bars, candidate, passed)
        seconds -= taken
        if seconds < -EPSILON:
            break
        trials += 1
        if at_top:
            climbed += 1
            best = max(best, float(found.scores[TOP][candidate]))
    return best, trials, climbed


def _climb(
    found: Measured, bars: Mapping[str, float], candidate: int, passed: Mapping[str, list[float]]
) -> tuple[float, bool]:
    """Return the seconds that a trial takes, and whether it climbs to the top; note its scores."""
    seconds = 0.0
    for rung in RUNGS:
        seconds += found.seconds[rung]
        if rung == TOP:
            break
        if rung not in bars:
            seconds -= found.evaluation
            continue
        score, others = float(found.scores[rung][candidate]), passed[rung]
        stops = len(others) >= STARTUP and score < np.quantile(others, bars[rung])
        others.append(score)
        if stops:
            return seconds, False
    return seconds, True
