"""The score of a trained model as a curve over the keep ratio of each group, cut alone.

Example:
    curves = sensitivity_curves(load_config("run.toml"), limit_seconds=60)
"""

from __future__ import annotations

import time

import numpy as np

from autoprune.config.settings import MOST_SECONDS
from autoprune.data import spread_samples
from autoprune.errors import ConfigError
from autoprune.progress import GIVEN_WATCH, Watch, watching
from autoprune.reconstruction import RATIOS
from autoprune.reporting import Curve, Curves
from autoprune.run._curve_outputs import Outputs, saved_curves, setting_of
from autoprune.run._measuring.moments import moments_of
from autoprune.run._measuring.statistics import MeasurementContext
from autoprune.run._resolving.dense import load_dense
from autoprune.run._resolving.latency import settle_divisor
from autoprune.run._resolving.paths import settle
from autoprune.run._resolving.problem import build_unlimited_problem, trace_dense
from autoprune.run._resolving.ranking import rank_channels
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.seen_validation import require_unseen_validation
from autoprune.run._resolving.spec import ConfigSource
from autoprune.score import cut_scores
from autoprune.space import Levels, widths_at
from autoprune.support.events import Stage
from autoprune.support.usercode import entry

SENSITIVITY_RATIOS = (*RATIOS[1:], RATIOS[0], 0.37, 0.87, 0.06, 0.62, 0.18)
"""Keep ratios at which each variable is cut, in this order. If time runs out, the last ones are missing."""

LIMIT_SECONDS = 300.0


@entry(watch=GIVEN_WATCH)
def sensitivity_curves(
    config: ConfigSource,
    outputs: Outputs = (),
    *,
    limit_seconds: float = LIMIT_SECONDS,
    watch: Watch = True,
) -> Curves:
    """Cut each variable of the search space alone, at several keep ratios, and score on the validation part.

    search.criterion decides which channels stay. BatchNorm is recalibrated, and layers are refitted if
    score.rungs has "repair". Nothing is trained.

    Args:
        config: the config of the run. Its keys search.sensitivity_* set the numbers of images and batches.
        outputs: pictures (PNG, SVG, PDF) and tables (CSV) to write, by their suffixes.
        limit_seconds: time after which no further cut begins, in seconds.
        watch: called with events that report the progress. True shows them if there is a terminal or a
            notebook, and None or False shows nothing.

    Returns:
        A curve for each group, and the files that were written.

    Raises:
        AutopruneError: model, weights or data cannot be loaded, or an output cannot be written.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017, figure 2 (b). They score the
    model directly after the cut. Here its BatchNorm is recalibrated first.

    Example:
        curves = autoprune.sensitivity_curves("digits", ["cuts.csv"], limit_seconds=60)
    """
    if not 0 < limit_seconds <= MOST_SECONDS:
        raise ConfigError(
            f"--limit: got {limit_seconds:g}, expected more than 0 seconds and at most {MOST_SECONDS:,}."
        )
    spec = settle(config)
    setting = setting_of(spec, outputs)
    dense = load_dense(spec)
    require_unseen_validation(spec, dense.data)
    prunable = trace_dense(dense, spec)
    with watching(watch) as show:
        spec, _ = settle_divisor(spec, prunable, show)
        problem = build_unlimited_problem(prunable, spec)
        run = Run(**vars(problem), spec=spec, dense=dense, setting=setting, watch=show)
        moments, search, metric = moments_of(run), spec.search, spec.task.metric
        ranking = rank_channels(run, spec.search.criteria[0], moments)
        scores, baseline = _score_cuts(MeasurementContext(run, ranking, moments=moments), limit_seconds)
    rows = run.space.keep_ratios.ladder.rows
    curves = [_sensitivity_curve(row, scores[v], baseline) for v, row in enumerate(rows)]
    found = Curves(
        f"Sensitivity: {metric} as one group is cut, channels by {spec.search.criteria[0]}, nothing trained",
        metric,
        tuple(curve for curve in curves if curve.ratios),
        axis=f"{metric} on {min(search.sensitivity_images, dense.data.val.samples):,} validation images",
        ratios=(1.0, *RATIOS),
        baseline=baseline,
    )
    return saved_curves(found, outputs)


def _score_cuts(context: MeasurementContext, limit_seconds: float) -> tuple[list[dict[int, float]], float]:
    """Return {level: score} of each variable, and the score of the uncut model."""
    run, search = context.run, context.run.spec.search
    rows = run.space.keep_ratios.ladder.rows
    tried: dict[tuple[int, int], None] = {}
    for ratio in SENSITIVITY_RATIOS:
        for v, row in enumerate(rows):
            level = int(row.of_ratio(np.array([ratio]))[0])
            if row.ratios[level] < 1:
                tried.setdefault((v, level))
    images = spread_samples(run.dense.data.val, search.sensitivity_images)
    cutter, task = context.cutter(), run.dense.task
    run.watch(Stage(f"sensitivity: {1 + len(tried)} evaluations on {images.samples:,} validation images"))
    count = context.counter("sensitivity", 1 + len(tried))
    scores: list[dict[int, float]] = [{} for _ in rows]
    began = time.monotonic()
    (baseline,) = cut_scores(cutter, [{}], images, task)
    for done, (v, level) in enumerate(tried, start=1):
        count(done)
        if time.monotonic() - began > limit_seconds:
            run.watch(
                Stage(f"sensitivity: stopped after {limit_seconds:g} s, {done} of {1 + len(tried)} are done")
            )
            break
        cut = widths_at(rows, run.space.groups, {v: level})
        (scores[v][level],) = cut_scores(cutter, [cut], images, task)
    return scores, baseline


def _sensitivity_curve(row: Levels, scores: dict[int, float], baseline: float) -> Curve:
    """Return the curve of one variable. Its upper end is the dense model."""
    levels = sorted(scores)
    full = row.ratios[-1] == 1
    widths = [int(row.widths[level].sum()) for level in levels]
    return Curve(
        row.name,
        (*widths, int(row.widths[-1].sum())) if full else tuple(widths),
        (*(float(row.ratios[level]) for level in levels), *([1.0] if full else [])),
        (*(scores[level] for level in levels), *([baseline] if full else [])),
    )
