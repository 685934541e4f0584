"""What is measured of every variable before a search begins: what each can lose, and at what price.

The warm start "sensitivity" and the samplers that draw by a statistic read it. The study keeps all of it, so
that a resume measures nothing again. With a supernet, too, it is measured on the dense model: the shared
weights are trained later, once there is a study.

    measure_statistics(context)         # {"kl": {"layer1.0.conv1": 0.12, ...}} where the sampler wants that
    measure_sensitivity(context).scores
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from autoprune.criteria import Importance
from autoprune.data import first_batches, spread_samples
from autoprune.errors import ConfigError, PlanError, unknown
from autoprune.reconstruction import Moments
from autoprune.run._events import Counted, Stage
from autoprune.run._expected_time import Pace, time_text
from autoprune.run._run import Run
from autoprune.samplers import find_sampler
from autoprune.score import Cut, Cutter, cut_scores, divergences
from autoprune.space import Levels
from autoprune.support.arrays import FloatArray

RATIOS = 4
"""Keep ratios at which each variable is cut alone, where the evaluations suffice; two at least."""

LIMIT_SHARE = 0.1
"""Share of the time that the search is expected to take, which the sensitivity may take before it."""

LIMIT_S = 10.0
"""The sensitivity may take so long in any case: an expectation of so short a time is not reliable."""

LEAST_IMAGES = 100
"""Scores on fewer images are too noisy: time is not saved below this."""

LEAST_EVALUATIONS = 5
"""Likewise for the evaluations: with fewer, all variables would be cut as one or two."""

CUT_SHARE = 0.5
"""The share of its channels that a variable loses for its statistics, the least important ones."""


@dataclass(frozen=True)
class MeasurementContext:
    """What statistics and warm starts are measured on: all of it known before the study is made.

    Attributes:
        run: all that is resolved.
        ranked: the importance of all channels by search.criterion.
        pace: of the dense model, or None for measurements without a limit of time.
        moments: returns the dense model's moments; None if nothing asks for them.
    """

    run: Run
    ranked: Importance
    pace: Pace | None = None
    moments: Callable[[], Moments] | None = None

    def cutter(self) -> Cutter:
        """Return what makes cut models; the batches that they are recalibrated on are drawn here.

        They are repaired if the candidates of the search are.
        """
        run, search = self.run, self.run.spec.search
        calibration = first_batches(run.dense.data.train, search.sensitivity_batches, seed=search.seed)
        moments = self.moments() if run.spec.is_repaired and self.moments is not None else None
        return Cutter(run.prunable, self.ranked, run.setting, calibration, moments)

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Return a function that tells how many of a measurement's evaluations are done."""
        return lambda done: self.run.watch(Counted(what, done, total))


@dataclass(frozen=True)
class Sensitivity:
    """How the score falls as each variable is cut alone.

    Attributes:
        variables: names of the k variables.
        ratios: for each the keep ratios of its cuts, ascending, float64 [m].
        scores: for each the scores of its cuts, float64 [m].
        baseline: the score with nothing cut.
        evaluations: models that were evaluated, the whole one included.
        seconds: that it took.
    """

    variables: tuple[str, ...]
    ratios: tuple[FloatArray, ...]
    scores: tuple[FloatArray, ...]
    baseline: float
    evaluations: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return it as the study keeps it: the table as {variable: [[keep ratio, score], ...]}."""
        pairs = (np.stack(each, axis=1).tolist() for each in zip(self.ratios, self.scores, strict=True))
        return {
            "seconds": self.seconds,
            "evaluations": self.evaluations,
            "baseline": self.baseline,
            "scores": dict(zip(self.variables, pairs, strict=True)),
        }


def measure_sensitivity(context: MeasurementContext) -> Sensitivity:
    """Cut each variable alone at several ratios, recalibrate BatchNorm, and score on validation images.

    Where there are too many variables for `search.sensitivity_evaluations`, fewer ratios are tried, and then
    neighbouring variables are cut together and share their scores. A cut model whose outputs are not finite
    counts as the worst that was seen. Images and evaluations become fewer if all of them would take more than
    `LIMIT_SHARE` of the time that the search is expected to take.

    Raises:
        PlanError: there is no time for `LEAST_EVALUATIONS`.
    """
    started = time.perf_counter()
    rows = context.run.space.keep_ratios.ladder.rows
    evaluations, most_images = _affordable(context)
    trials = plan_cuts(rows, evaluations)
    names = context.run.space.groups
    cuts: list[Cut] = [{}, *(widths_at(rows, names, levels) for levels in trials)]
    images = spread_samples(context.run.dense.data.val, most_images)
    together = (
        "; neighbours are cut together and share their scores: for each alone raise "
        f"search.sensitivity_evaluations to {2 * len(rows) + 1}"
        if any(len(levels) > 1 for levels in trials)
        else ""
    )
    context.run.watch(
        Stage(
            f"sensitivity of {len(rows)} keep ratios: {len(cuts)} evaluations on {images.samples:,} "
            f"validation images{together}"
        )
    )
    counter = context.counter("sensitivity", len(cuts))
    scores = cut_scores(context.cutter(), cuts, images, context.run.dense.task, done=counter)
    worst = min((score for score in scores if math.isfinite(score)), default=0.0)
    baseline, *measured = (score if math.isfinite(score) else worst for score in scores)
    tables = [_table(row, v, trials, measured) for v, row in enumerate(rows)]
    seconds = time.perf_counter() - started
    context.run.watch(Stage(f"sensitivity: measured in {seconds:.1f} s"))
    return Sensitivity(
        tuple(row.name for row in rows),
        tuple(ratios for ratios, _ in tables),
        tuple(found for _, found in tables),
        baseline,
        len(cuts),
        seconds,
    )


def _affordable(context: MeasurementContext) -> tuple[int, int]:
    """Return how many evaluations, on how many images, there is time for.

    Raises:
        PlanError: for too few.
    """
    search, data, pace = context.run.spec.search, context.run.dense.data, context.pace
    asked, images = search.sensitivity_evaluations, search.sensitivity_images
    if pace is None:
        return asked, images
    evaluations = 1 + len(plan_cuts(context.run.space.keep_ratios.ladder.rows, asked))
    # A refit takes the time of so many images more.
    recalibrated = (
        search.sensitivity_batches * context.run.spec.data.batch_size + pace.repair_s / pace.image_s
    )
    expected_s = pace.search_s(context.run.spec, data)
    passes = max(LIMIT_S, LIMIT_SHARE * expected_s) / pace.image_s
    images = min(images, data.val.samples)
    while evaluations * (recalibrated + images) > passes and images > LEAST_IMAGES:
        images = max(LEAST_IMAGES, images // 2)
    possible = int(passes / (recalibrated + images))
    if possible >= evaluations:
        return asked, images
    if possible < min(evaluations, LEAST_EVALUATIONS):
        share = f"{LIMIT_SHARE:.0%} of the search, which takes up to {time_text(expected_s)}"
        raise PlanError(f"it would take more than {share}.")
    return possible, images


def plan_cuts(rows: Sequence[Levels], evaluations: int) -> list[dict[int, int]]:
    """Return the cuts to evaluate, {variable's position: level} each, at most `evaluations` - 1.

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


def _level_at(row: Levels, place: float) -> int:
    """Return the level at a place from the lowest ratio (0) to ratio 1 (1)."""
    ratio = row.ratios[0] + (1 - row.ratios[0]) * place
    return int(row.of_ratio(np.array([ratio]))[0])


def widths_at(rows: Sequence[Levels], groups: Sequence[str], levels: Mapping[int, int]) -> Cut:
    """Return the widths of the groups of some variables, {variable's position: level}."""
    return {
        groups[column]: int(width)
        for v, level in levels.items()
        for column, width in zip(rows[v].columns, rows[v].widths[level], strict=True)
    }


def _table(
    row: Levels, variable: int, trials: Sequence[Mapping[int, int]], scores: Sequence[float]
) -> tuple[FloatArray, FloatArray]:
    """Return a variable's keep ratios below 1, ascending, and their scores; the mean where one repeats."""
    seen: dict[float, list[float]] = {}
    for levels, score in zip(trials, scores, strict=True):
        if variable in levels and row.ratios[levels[variable]] < 1:
            seen.setdefault(float(row.ratios[levels[variable]]), []).append(score)
    ratios = sorted(seen)
    return np.array(ratios), np.array([float(np.mean(seen[ratio])) for ratio in ratios])


def measure_importance(context: MeasurementContext) -> dict[str, float]:
    """Return the share of its groups' importance in the lower half of a variable's channels, 0 to 0.5.

    Near 0.5 all channels matter alike and any cut costs; near 0 the lower half can go. A plain mean would not
    do: criteria have units of their own in every layer, and once that is divided out all means are 1.
    """
    return {
        variable.name: float(np.mean([lower_share(context.ranked[name]) for name in variable.groups]))
        for variable in context.run.space.variables
    }


def lower_share(scores: FloatArray) -> float:
    """Return the share of the sum of scores [width] that the lower half of them holds; 0 where all are 0."""
    ascending = np.sort(scores) - min(0.0, float(np.min(scores)))
    total = float(ascending.sum())
    return float(ascending[: len(scores) - _half(len(scores))].sum()) / total if total > 0 else 0.0


def measure_divergence(context: MeasurementContext) -> dict[str, float]:
    """Return the KL divergence of the outputs as the lower half of a variable's channels goes, in nats.

    The mean over `search.sensitivity_batches` training batches, on which BatchNorm is recalibrated too, since
    every candidate of a search is. What is not finite counts as the largest divergence seen. Half is far
    enough for the divergences to differ, and near enough for the outputs to mean something.
    """
    cutter = context.cutter()
    widths = {group.name: group.width for group in context.run.prunable.groups}
    variables = context.run.space.variables
    cuts = [{name: _half(widths[name]) for name in variable.groups} for variable in variables]
    context.run.watch(
        Stage(f"KL divergence of {len(cuts)} keep ratios: half of the channels of each cut alone")
    )
    counter = context.counter("KL divergence", len(cuts))
    found = divergences(cutter, cuts, cutter.calibration, done=counter)
    largest = max((value for value in found if math.isfinite(value)), default=1.0)
    return {
        variable.name: value if math.isfinite(value) else largest
        for variable, value in zip(variables, found, strict=True)
    }


STATISTICS: dict[str, Callable[[MeasurementContext], dict[str, float]]] = {
    "importance": measure_importance,
    "kl": measure_divergence,
}
"""Statistics that the `needs` of a sampler may name: {variable: value}, higher if cuts of it hurt more."""


def measure_statistics(context: MeasurementContext, sampler: str) -> dict[str, dict[str, float]]:
    """Measure the statistics that a sampler needs."""
    return {name: STATISTICS[name](context) for name in needed_statistics(sampler)}


def needed_statistics(sampler: str) -> tuple[str, ...]:
    """Return the statistics that a sampler needs.

    Raises:
        ConfigError: there is no such sampler, or a user's own needs a statistic that does not exist.
    """
    needs = find_sampler(sampler).needs
    for name in needs:
        if name not in STATISTICS:
            raise ConfigError(unknown(f'search.sampler: "{sampler}" needs a statistic', name, STATISTICS))
    return needs


def _half(width: int) -> int:
    """Return the channels that are kept as a variable loses `CUT_SHARE` of them."""
    return max(1, width - int(CUT_SHARE * width))
