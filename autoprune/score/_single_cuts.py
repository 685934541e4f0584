"""Score a model as each variable of a space is cut alone, at a few keep ratios.

Example:
    trials = plan_cuts(rows, evaluations=80)
    found = score_single_cuts(cutter, space, trials, images, task)
    found.ratios[0], found.scores[0], found.baseline
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autoprune.data import Loader
from autoprune.score._sensitivity import Cut, Cutter, cut_scores
from autoprune.space import Levels, SearchSpace, widths_at
from autoprune.support.arrays import FloatArray
from autoprune.training import Task

RATIOS = 4
"""Largest number of keep ratios at which each variable is cut alone."""


@dataclass(frozen=True)
class SingleCuts:
    """The scores of a model as each of its k variables is cut alone.

    Attributes:
        ratios: for each variable the keep ratios of its cuts, ascending, float64 [m].
        scores: for each variable the scores of its cuts, float64 [m].
        baseline: score of the uncut model.
    """

    ratios: tuple[FloatArray, ...]
    scores: tuple[FloatArray, ...]
    baseline: float


def plan_cuts(rows: Sequence[Levels], evaluations: int) -> list[dict[int, int]]:
    """Return at most `evaluations` - 1 cuts to evaluate, each as {variable's position: level}.

    Each variable is cut alone at up to `RATIOS` ratios, evenly spaced from its lowest to 1. With more than
    (evaluations - 1) / 2 variables, neighbours are cut together. At least one cut is evaluated.
    """
    most = max(1, evaluations - 1)
    blocks = np.array_split(np.arange(len(rows)), min(len(rows), max(1, most // 2)))
    count = max(1, min(RATIOS, most // len(blocks)))
    cuts: list[dict[int, int]] = []
    for block in blocks:
        found: dict[tuple[int, ...], dict[int, int]] = {}
        for place in np.arange(count) / count:
            levels = {v: _level_at(rows[v], place) for v in block.tolist()}
            if any(rows[v].ratios[level] < 1 for v, level in levels.items()):
                found.setdefault(tuple(levels.values()), levels)
        cuts += found.values()
    return cuts


def score_single_cuts(
    cutter: Cutter,
    space: SearchSpace,
    trials: Sequence[Mapping[int, int]],
    images: Loader,
    task: Task,
    *,
    done: Callable[[int], None] | None = None,
) -> SingleCuts:
    """Score the cuts of `plan_cuts`. A cut model whose outputs are not finite gets the worst finite score.

    Args:
        cutter: makes the cut models.
        space: the space of the variables. Its budget does not matter.
        trials: the cuts.
        images: the part of the data to evaluate on.
        task: the task with the metric.
        done: called after each evaluation with their number so far. The first is that of the uncut model.
    """
    rows = space.keep_ratios.ladder.rows
    cuts: list[Cut] = [{}, *(widths_at(rows, space.groups, levels) for levels in trials)]
    scores = cut_scores(cutter, cuts, images, task, done=done)
    worst = min((score for score in scores if math.isfinite(score)), default=0.0)
    baseline, *measured = (score if math.isfinite(score) else worst for score in scores)
    tables = [_table(row, v, trials, measured) for v, row in enumerate(rows)]
    return SingleCuts(tuple(ratios for ratios, _ in tables), tuple(found for _, found in tables), baseline)


def _level_at(row: Levels, place: float) -> int:
    """Return the level at a place between the lowest ratio (place 0) and ratio 1 (place 1)."""
    ratio = row.ratios[0] + (1 - row.ratios[0]) * place
    return int(row.of_ratio(np.array([ratio]))[0])


def _table(
    row: Levels, variable: int, trials: Sequence[Mapping[int, int]], scores: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    """Return a variable's keep ratios below 1, ascending, and the mean score of each."""
    seen: dict[float, list[float]] = {}
    for levels, score in zip(trials, scores, strict=True):
        if variable in levels and row.ratios[levels[variable]] < 1:
            seen.setdefault(float(row.ratios[levels[variable]]), []).append(score)
    ratios = sorted(seen)
    return np.array(ratios), np.array([float(np.mean(seen[ratio])) for ratio in ratios])
