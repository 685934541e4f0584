"""Times the best trials on the device, beside the dense model: what the user asked for is judged by that.

Before: `search` has all its trials, whose latency was predicted; after: the study's best keeps to the budget
as it was measured.

    measure_finalists(study, config, dense, problem, watch)
    study.best().measured.ratio          # 0.58 of the dense model's time, where 60% were asked
"""

from __future__ import annotations

from autoprune.criteria import plan_from_importance
from autoprune.errors import LatencyError
from autoprune.latency import Measurement, Ratio, measure_beside
from autoprune.pipeline.dense import Dense
from autoprune.pipeline.events import Stage, Watcher
from autoprune.pipeline.latency import latency_setting, stored_tables
from autoprune.pipeline.problem import Problem
from autoprune.pipeline.ranking import decode_ranking
from autoprune.rebuild import rebuild
from autoprune.settings import RunConfig
from autoprune.study import MeasuredLatency, SearchStudy, TrialRecord

FINALISTS = 5
"""So many of the best are timed at least, since a prediction errs; one more until one keeps to the budget."""

MOST = 15
"""So many are timed at most: by then the predictions are wrong, not the candidates."""


def measure_finalists(
    study: SearchStudy, config: RunConfig, dense: Dense, problem: Problem, watch: Watcher
) -> None:
    """Time the best trials, the best first, and keep in the study what was measured.

    Those with equal widths are timed once. What was timed before, by a search that was resumed since, is not
    timed again. Nothing happens where latency is not limited, or on another device than the table's.
    """
    # Latency as an objective alone is no limit to keep to.
    if config.budget.latency is None or _is_elsewhere(study, config, problem, watch):
        return
    whole = [record for record in study.records() if record.is_whole]
    ranked = sorted(whole, key=lambda record: -record.scores[-1].score)
    timed: dict[tuple[int, ...], MeasuredLatency] = {}
    for record in ranked:
        if len(timed) >= MOST or (len(timed) >= FINALISTS and any(each.met for each in timed.values())):
            break
        widths = tuple(record.widths.values())
        if widths in timed:
            continue
        timed[widths] = record.measured or _time(study, record, config, dense, problem, watch)
    if timed and not any(measured.met for measured in timed.values()):
        fastest = min(timed.values(), key=lambda measured: measured.ratio)
        watch(
            Stage(
                f"none of the {len(timed)} best trials keeps to budget.latency = {config.budget.latency}; "
                f"the fastest takes {_words(fastest)}. Ask for a little less: predictions err."
            )
        )


def keeps_to(problem: Problem, measured: Measurement, ratio: Ratio) -> bool:
    """Tell whether a measurement keeps to the latency as it was asked: a share of the dense's, or ms."""
    limit = problem.budget.limits["latency_ms"]
    asked = problem.budget.asked["latency_ms"]
    if asked.is_share:
        return ratio.ratio <= limit / asked.dense
    return measured.median_ms <= limit


def _is_elsewhere(study: SearchStudy, config: RunConfig, problem: Problem, watch: Watcher) -> bool:
    """Tell whether this is another device than the study's table was measured on, and say so."""
    table = stored_tables(study, config).table
    try:
        if table is not None:
            table.require(problem.prunable, latency_setting(config.latency))
    except LatencyError as error:
        watch(Stage(f"the best trials are not timed here: {error}"))
        return True
    return False


def _time(
    study: SearchStudy,
    record: TrialRecord,
    config: RunConfig,
    dense: Dense,
    problem: Problem,
    watch: Watcher,
) -> MeasuredLatency:
    plan = plan_from_importance(problem.prunable, record.widths, decode_ranking(study.chosen["ranking"]))
    small, _, ratio = measure_beside(
        rebuild(problem.prunable, plan),
        dense.model,
        dense.example_inputs,
        latency_setting(config.latency),
        tolerance=config.latency.tolerance,
        limit_seconds=config.latency.limit_seconds,
    )
    measured = MeasuredLatency(
        small.median_ms, small.interval_ms, ratio.ratio, ratio.interval, keeps_to(problem, small, ratio)
    )
    study.store_measured(record.number, measured)
    verdict = "within" if measured.met else "over"
    watch(Stage(f"trial {record.number} takes {_words(measured)}: {verdict} {config.budget.latency}"))
    return measured


def _words(measured: MeasuredLatency) -> str:
    low, high = measured.ratio_interval
    share = f"{measured.ratio:.1%} ({low:.1%} to {high:.1%})"
    return f"{measured.latency_ms:.3g} ms, {share} of the dense model's time"
