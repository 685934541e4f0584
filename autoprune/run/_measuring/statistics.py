"""Statistics of each keep ratio that are measured before a search, such as its sensitivity.

The warm start "sensitivity" and some samplers read them. The study stores them, so that a resume measures
nothing again. They are always measured on the dense model, because a supernet is trained only after the study
is created.

Example:
    measure_statistics(context, "kl")        # {"kl": {"layer1.0.conv1": 0.12, ...}}
    measure_sensitivity(context).scores
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from autoprune.criteria import Importance
from autoprune.data import first_batches, spread_samples
from autoprune.errors import ConfigError, PlanError, unknown
from autoprune.progress import time_text
from autoprune.reconstruction import ErrorLibrary, Moments
from autoprune.run._measuring.expected_time import Pace
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.run import Run
from autoprune.samplers import find_sampler
from autoprune.score import Cut, Cutter, cut_scores, divergences, plan_cuts, score_single_cuts
from autoprune.support.arrays import FloatArray
from autoprune.support.events import Counted, Stage
from autoprune.support.schema import Strict

LIMIT_SHARE = 0.1
"""Time limit of the sensitivity, as a share of the expected time of the search."""

LIMIT_S = 10.0
"""Seconds that the sensitivity may always take. The expected time of a shorter search is not reliable."""

LEAST_IMAGES = 100
"""Smallest number of images to which a time limit may lead. Scores on fewer images are too noisy."""

LEAST_EVALUATIONS = 5
"""Smallest number of evaluations. With fewer, the variables would be cut in only one or two blocks."""

CUT_SHARE = 0.5
"""Share of its channels that a variable loses while its statistics are measured, the least important ones."""


@dataclass(frozen=True)
class Reused:
    """Measurements of an earlier study that are valid for a new one. Those that are not are None or empty.

    Attributes:
        rankings: of each criterion, the channels of each group by rank, which is higher for more important
            ones.
        library: the error library in the order of the first ranking.
        sensitivity: the scores as each variable is cut alone.
        statistics: {statistic: {variable: value}}.
        moments: the file of moments.
    """

    rankings: tuple[Importance, ...] = ()
    library: ErrorLibrary | None = None
    sensitivity: Sensitivity | None = None
    statistics: Mapping[str, dict[str, float]] = field(default_factory=dict)
    moments: Path | None = None


@dataclass(frozen=True)
class MeasurementContext:
    """The inputs of statistics and warm starts. All of them are known before the study is created.

    Attributes:
        run: the resolved run.
        ranked: the importance of all channels by search.criterion.
        pace: the speed of the dense model, or None for measurements without a time limit.
        moments: returns the moments of the dense model. May be None if nothing reads them.
        earlier: measurements of an earlier study that are valid for this run. If it has rankings, `ranked`
            is the first of them, and holds no importances but ranks.
    """

    run: Run
    ranked: Importance
    pace: Pace | None = None
    moments: Callable[[], Moments] | None = None
    earlier: Reused = field(default_factory=Reused)
    _importances: dict[str, Importance] = field(default_factory=dict)

    def importance(self, criterion: str) -> Importance:
        """Return the importance of all channels by a criterion, measured once."""
        if criterion not in self._importances:
            is_known = criterion == self.run.spec.search.criteria[0] and not self.earlier.rankings
            self._importances[criterion] = (
                self.ranked if is_known else rank_channels(self.run, criterion, self.moments)
            )
        return self._importances[criterion]

    def cutter(self) -> Cutter:
        """Return a cutter, which builds cut models and recalibrates them on batches that are drawn here.

        It repairs the models if the search repairs its candidates.
        """
        run, search = self.run, self.run.spec.search
        calibration = first_batches(run.dense.data.train, search.sensitivity_batches, seed=search.seed)
        moments = self.moments() if run.spec.is_repaired and self.moments is not None else None
        return Cutter(run.prunable, self.ranked, run.setting, calibration, moments)

    def counter(self, what: str, total: int) -> Callable[[int], None]:
        """Return a function that reports how many evaluations of a measurement are done."""
        return lambda done: self.run.watch(Counted(what, done, total))


@dataclass(frozen=True)
class Sensitivity:
    """The scores of the model as each variable is cut alone.

    Attributes:
        variables: names of the k variables.
        ratios: for each variable the keep ratios of its cuts, ascending, float64 [m].
        scores: for each variable the scores of its cuts, float64 [m].
        baseline: score of the uncut model.
        evaluations: number of evaluated models, including the uncut one.
        seconds: duration of the measurement.
    """

    variables: tuple[str, ...]
    ratios: tuple[FloatArray, ...]
    scores: tuple[FloatArray, ...]
    baseline: float
    evaluations: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Return the values for the study, with the scores as {variable: [[keep ratio, score], ...]}."""
        pairs = (np.stack(each, axis=1).tolist() for each in zip(self.ratios, self.scores, strict=True))
        return {
            "seconds": self.seconds,
            "evaluations": self.evaluations,
            "baseline": self.baseline,
            "scores": dict(zip(self.variables, pairs, strict=True)),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Sensitivity:
        """Read the values of `to_json` from a study.

        Raises:
            ValueError: they are damaged.
        """
        stored = StoredSensitivity.model_validate(values)
        tables = [np.array(pairs, dtype=np.float64).reshape(-1, 2).T for pairs in stored.scores.values()]
        return cls(
            tuple(stored.scores),
            tuple(ratios for ratios, _ in tables),
            tuple(scores for _, scores in tables),
            stored.baseline,
            stored.evaluations,
            stored.seconds,
        )


class StoredSensitivity(Strict):
    """A sensitivity as a study stores it."""

    seconds: float
    evaluations: int
    baseline: float
    scores: dict[str, list[list[float]]]


def measure_sensitivity(context: MeasurementContext) -> Sensitivity:
    """Cut each variable alone at several ratios, recalibrate BatchNorm, and score on validation images.

    If there are too many variables for `search.sensitivity_evaluations`, fewer ratios are tried, and then
    neighbouring variables are cut together and share their scores. A cut model whose outputs are not finite
    receives the worst finite score. The numbers of images and evaluations are reduced if all of them would
    take more than `LIMIT_SHARE` of the expected time of the search.

    Raises:
        PlanError: the time does not suffice for `LEAST_EVALUATIONS`.
    """
    started = time.perf_counter()
    rows = context.run.space.keep_ratios.ladder.rows
    asked = context.run.spec.search.sensitivity_evaluations
    possible, most_images = _affordable(context, 1 + len(plan_cuts(rows, asked)))
    trials = plan_cuts(rows, possible or asked)
    images = spread_samples(context.run.dense.data.val, most_images)
    together = (
        ". Neighbours are cut together and share their scores. To cut each alone, raise "
        f"search.sensitivity_evaluations to {2 * len(rows) + 1}"
        if any(len(levels) > 1 for levels in trials)
        else ""
    )
    context.run.watch(
        Stage(
            f"sensitivity of {len(rows)} keep ratios: {1 + len(trials)} evaluations on {images.samples:,} "
            f"validation images{together}"
        )
    )
    counter = context.counter("sensitivity", 1 + len(trials))
    task, cutter = context.run.dense.task, context.cutter()
    found = score_single_cuts(cutter, context.run.space, trials, images, task, done=counter)
    seconds = time.perf_counter() - started
    context.run.watch(Stage(f"sensitivity: measured in {seconds:.1f} s"))
    return Sensitivity(
        tuple(row.name for row in rows),
        found.ratios,
        found.scores,
        found.baseline,
        1 + len(trials),
        seconds,
    )


def measure_blocks(context: MeasurementContext) -> dict[str, float]:
    """Return {block: fall of the score} as each block of the search space is dropped alone.

    The models are scored as those of `measure_sensitivity`. A score that is not finite counts as the worst.

    Raises:
        PlanError: the time does not suffice for all blocks.
    """
    names = [block.name for block in context.run.space.blocks]
    possible, images = _affordable(context, 1 + len(names))
    if possible is not None:
        raise PlanError(f"there is no time to score {1 + len(names)} models. Raise search.trials.")
    part = spread_samples(context.run.dense.data.val, images)
    cuts: list[Cut] = [{}, *({name: 0} for name in names)]
    counter = context.counter("blocks", len(cuts))
    scores = np.array(cut_scores(context.cutter(), cuts, part, context.run.dense.task, done=counter))
    scores = np.where(np.isfinite(scores), scores, np.min(scores[np.isfinite(scores)], initial=0.0))
    return dict(zip(names, (scores[0] - scores[1:]).tolist(), strict=True))


def _affordable(context: MeasurementContext, evaluations: int) -> tuple[int | None, int]:
    """Return how many of some evaluations fit into the time limit, None for all, and on how many images.

    Raises:
        PlanError: too few do.
    """
    search, data, pace = context.run.spec.search, context.run.dense.data, context.pace
    images = search.sensitivity_images
    if pace is None:
        return None, images
    # In images: those of the recalibration, and as many as take the time of a refit.
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
        return None, images
    if possible < min(evaluations, LEAST_EVALUATIONS):
        share = f"{LIMIT_SHARE:.0%} of the search, which takes up to {time_text(expected_s)}"
        raise PlanError(f"it would take more than {share}.")
    return possible, images


def measure_importance(context: MeasurementContext) -> dict[str, float]:
    """Return, for each variable, the share of importance in the less important half of its channels.

    The share lies in [0, 0.5]. Near 0.5 all channels are equally important, and any cut is expensive. Near 0
    the lower half can be removed. A mean importance would not do: criteria have a different unit in every
    layer, and after a normalisation by layer all means are 1.
    """
    measured = context.importance(context.run.spec.search.criteria[0])
    return {
        variable.name: float(np.mean([lower_share(measured[name]) for name in variable.groups]))
        for variable in context.run.space.keep_ratios.variables
    }


def lower_share(scores: FloatArray) -> float:
    """Return the share of the lower half of scores [width] in their sum, or 0 if all are 0."""
    ascending = np.sort(scores) - min(0.0, float(np.min(scores)))
    total = float(ascending.sum())
    return float(ascending[: len(scores) - _half(len(scores))].sum()) / total if total > 0 else 0.0


def measure_divergence(context: MeasurementContext) -> dict[str, float]:
    """Return, for each variable, the KL divergence of the outputs in nats as half of its channels are cut.

    The divergence is a mean over `search.sensitivity_batches` training batches. BatchNorm is recalibrated on
    the same batches, as for every candidate of a search. A divergence that is not finite is replaced by the
    largest finite one. Half of the channels is enough for the divergences to differ, and not so many that
    the outputs become noise.
    """
    cutter = context.cutter()
    widths = {group.name: group.width for group in context.run.prunable.groups}
    variables = context.run.space.keep_ratios.variables
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
"""Statistics that a sampler may need, as {variable: value}. A higher value means that cuts harm more."""


def measure_statistics(context: MeasurementContext, sampler: str) -> dict[str, dict[str, float]]:
    """Measure the statistics that a sampler needs, unless they are known from an earlier study."""
    known = context.earlier.statistics
    return {name: known.get(name) or STATISTICS[name](context) for name in needed_statistics(sampler)}


def needed_statistics(sampler: str) -> tuple[str, ...]:
    """Return the statistics that a sampler needs.

    Raises:
        ConfigError: the sampler is unknown, or a user's own sampler needs an unknown statistic.
    """
    needs = find_sampler(sampler).needs
    for name in needs:
        if name not in STATISTICS:
            raise ConfigError(unknown(f'search.sampler: "{sampler}" needs a statistic', name, STATISTICS))
    return needs


def _half(width: int) -> int:
    """Return the number of channels that remain after a cut of `CUT_SHARE`."""
    return max(1, width - int(CUT_SHARE * width))
