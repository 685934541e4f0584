"""Times the best trials on the device, side by side with the dense model.

Trials are proposed by predicted latency. These measurements decide whether a trial meets the budget.

Example:
    measure_finalists(run, study)
    study.best().measured.ratio          # 0.58 of the dense model's time, within a budget of 60%
"""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from autoprune.config.settings import Amount
from autoprune.cost import LATENCY
from autoprune.criteria import plan_from_importance
from autoprune.errors import ConfigError, LatencyError
from autoprune.latency import Measurement, MeasureSideBySide, Ratio, side_by_side
from autoprune.rebuilding import rebuild
from autoprune.run._resolving.problem import Problem
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.stored_config import stored_ranking
from autoprune.run._trials.race_plan import entrants_of
from autoprune.study import MeasuredLatency, SearchStudy, TrialRecord, study_command
from autoprune.support.events import Stage

FINALISTS = 5
"""Number of the best trials that are timed. More follow until one is surely within the budget."""

MOST = 15
"""Largest number of trials that are timed. If all of these miss the budget, the predictions are wrong."""


def measure_finalists(run: Run, study: SearchStudy) -> None:
    """Time the best trials, the best first, and store the measurements in the study.

    With several objectives these are trials of the Pareto front, at most MOST, spread over it. Trials with
    equal widths are timed once, and measurements from before a resume are reused. A trial that cannot be
    timed, e.g. because a phone is unplugged, is reported and skipped. The heuristics that enter the race are
    timed too.

    The function does nothing if latency is neither limited nor minimised, or if the latency table was
    measured on another device.
    """
    if LATENCY not in run.budget.limits or _is_elsewhere(run):
        return
    timed: dict[tuple[int, ...], MeasuredLatency] = {}
    failed: list[int] = []
    with contextlib.ExitStack() as stack:
        # Prepared at the first use, because compiling or exporting the dense model takes a while.
        measure = functools.cache(lambda: stack.enter_context(_open_timing(run)))
        for record in itertools.chain(_enough_finalists(run, study, timed), _entrants(run, study, failed)):
            try:
                measured = record.measured or _time(run, study, record, measure())
            except LatencyError as error:
                failed.append(record.number)
                run.watch(Stage(f"trial {record.number} cannot be timed: {error}"))
                continue
            timed[tuple(record.widths.values())] = measured
    _report_finalists(run, study, list(timed.values()), failed)


def _enough_finalists(
    run: Run, study: SearchStudy, timed: Mapping[tuple[int, ...], MeasuredLatency]
) -> Iterator[TrialRecord]:
    """Iterate over the finalists until FINALISTS are timed and one of them is surely within the budget."""
    for number, record in enumerate(_next_finalists(study, run.budget.limits[LATENCY])):
        is_sure = any(measured.keeps_surely for measured in timed.values())
        if len(study.objectives) == 1 and number >= FINALISTS and is_sure:
            return
        yield record


def _entrants(run: Run, study: SearchStudy, failed: Sequence[int]) -> Iterator[TrialRecord]:
    """Iterate over the trials that would enter the race and were not timed so far."""
    if run.spec.has_race and any(record.is_whole for record in study.records()):
        for record in entrants_of(study, run.spec.race.entrants):
            if record.measured is None and record.number not in failed:
                yield record


def _report_finalists(
    run: Run, study: SearchStudy, timed: Sequence[MeasuredLatency], failed: Sequence[int]
) -> None:
    """Report how many trials could not be timed, and whether none of the others is within the limit."""
    if failed:
        later = f"`{study_command('resume', study.name, study.url)}` times them later"
        some = f"{len(failed)} of the best trials could not" if timed else "none of the best trials could"
        run.watch(Stage(f"{some} be timed: {later}"))
    if timed and all(measured.met is False for measured in timed):
        fastest = min(timed, key=lambda measured: measured.ratio)
        run.watch(
            Stage(
                f"none of the {len(timed)} best trials is within budget.latency = {run.spec.budget.latency}. "
                f"The fastest takes {_words(fastest)}. Set the limit a little lower: predictions have errors."
            )
        )


def judge(problem: Problem, measured: Measurement, ratio: Ratio) -> tuple[bool | None, bool | None]:
    """Compare a measurement with the latency limit, in ms or as a share of the dense model's time.

    Returns:
        Whether the median is within the limit, and whether the whole interval lies on the same side of it.
        Both are None if there is no limit.
    """
    requested = problem.budget.requested.get(LATENCY)
    if requested is None:
        return None, None
    limit = problem.budget.limits[LATENCY]
    if requested.is_share:
        value, (low, high), limit = ratio.ratio, ratio.interval, limit / requested.dense
    else:
        value, (low, high) = measured.median_ms, measured.interval_ms
    return value <= limit, high <= limit if value <= limit else low > limit


def _next_finalists(study: SearchStudy, limit: float) -> Iterator[TrialRecord]:
    """Iterate over at most MOST finalists, read again each time since measurements change the front."""
    seen: set[tuple[int, ...]] = set()
    while len(seen) < MOST:
        pending = [each for each in _finalists(study, limit) if tuple(each.widths.values()) not in seen]
        if not pending:
            return
        seen.add(tuple(pending[0].widths.values()))
        yield pending[0]


def _finalists(study: SearchStudy, limit: float) -> list[TrialRecord]:
    """Return at most MOST trials of different widths: the best of those expected within the limit first."""
    if len(study.objectives) > 1:
        front = study.front()
        chosen = np.unique(np.linspace(0, len(front) - 1, min(MOST, len(front))).round().astype(int))
        ranked: Sequence[TrialRecord] = [front[place] for place in chosen.tolist()]
    else:
        ranked = [record for record in study.records() if record.is_whole]
    by_widths: dict[tuple[int, ...], TrialRecord] = {}
    for record in sorted(ranked, key=lambda record: _rank(study, record, limit)):
        by_widths.setdefault(tuple(record.widths.values()), record)
    return list(by_widths.values())[:MOST]


def _rank(study: SearchStudy, record: TrialRecord, limit: float) -> tuple[float, ...]:
    """Return the sort key of a finalist: the best first or, with a tolerance, the smallest within it.

    Between the steps of a runtime a candidate is slower than the space assumed when it filled the budget.
    Candidates whose expected latency exceeds the limit therefore come last.
    """
    over, score = record.costs[LATENCY] > limit, record.scores[-1].score
    tolerance, least = study.facts.tolerance, study.least_score
    if tolerance is None or least is None:
        return over, -score
    return over, score < least, record.costs[tolerance.cost]


def _open_timing(run: Run) -> contextlib.AbstractContextManager[MeasureSideBySide]:
    return side_by_side(
        run.prunable.part,
        run.prunable.example_inputs,
        run.spec.usable_runtime,
        tolerance=run.spec.latency.tolerance,
        limit_seconds=run.spec.latency.limit_seconds,
    )


def _is_elsewhere(run: Run) -> bool:
    """Return whether the table is of another device, or of a probe that is missing here, and report it."""
    try:
        if run.table is not None:
            run.table.require(run.prunable, run.spec.usable_runtime)
    except (LatencyError, ConfigError) as error:
        run.watch(Stage(f"the best trials are not timed here: {error}"))
        return True
    return False


def _time(run: Run, study: SearchStudy, record: TrialRecord, measure: MeasureSideBySide) -> MeasuredLatency:
    plan = plan_from_importance(run.prunable, record.widths, stored_ranking(study, run.prunable, record))
    small, _, ratio = measure(run.prunable.part_of(rebuild(run.prunable, plan)))
    measured = MeasuredLatency(
        small.median_ms, small.interval_ms, ratio.ratio, ratio.interval, *judge(run, small, ratio)
    )
    study.store_measured(record.number, measured)
    verdict = _verdict(measured, run.spec.budget.latency)
    run.watch(Stage(f"trial {record.number} takes {_words(measured)}{verdict}"))
    return measured


def _verdict(measured: MeasuredLatency, limit: Amount) -> str:
    if measured.met is None:
        return ""
    side, other = ("within", "beyond") if measured.met else ("over", "below")
    doubt = "" if measured.surely else f", though its interval reaches {other} it"
    return f": {side} {limit}{doubt}"


def _words(measured: MeasuredLatency) -> str:
    low, high = measured.ratio_interval
    share = f"{measured.ratio:.1%} ({low:.1%} to {high:.1%})"
    return f"{measured.latency_ms:.3g} ms, {share} of the dense model's time"
