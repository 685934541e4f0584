"""Reports the start of a search and the end of each trial to a watcher.

Example:
    report_problem(problem, spec, watch)      # groups, costs, budget
    on_event = trial_reporter(run, study)     # for an engine
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from autoprune.cost import COSTS, LATENCY
from autoprune.engines import TrialEvent
from autoprune.run._resolving.problem import SHORT_OF_WINDOW, Problem, few_plans
from autoprune.run._resolving.run import Run
from autoprune.run._resolving.spec import RunSpec
from autoprune.space import SHARE
from autoprune.study import SearchStudy, TrialRecord
from autoprune.support.events import Stage, TrialDone, Watcher

_log = logging.getLogger(__name__)


def report_problem(problem: Problem, spec: RunSpec, watch: Watcher) -> None:
    """Report the groups, costs and limits of a search, and those consequences that may surprise a user."""
    groups = len(problem.prunable.searchable)
    limits = ", ".join(
        f"{COSTS[name].label} <= {COSTS[name].unit.write(limit)}"
        for name, limit in problem.budget.limits.items()
    )
    watch(
        Stage(
            f"traced {groups} channel groups, {len(problem.space.keep_ratios.variables)} keep ratios; "
            f"dense MACs {problem.dense_cost.macs:,}, FLOPs {problem.dense_cost.flops:,}, "
            f"params {problem.dense_cost.params:,}; budget {limits}"
        )
    )
    _report_shares(problem, spec, watch)
    if not problem.space.reach().in_window:
        watch(Stage(SHORT_OF_WINDOW))
    if few := few_plans(problem.space, spec.search.trials):
        watch(Stage(few))
    for name, step in problem.space.relaxed.items():
        watch(Stage(f"{name} is too small for the divisor, so its widths are multiples of {step}"))


def _report_shares(problem: Problem, spec: RunSpec, watch: Watcher) -> None:
    """Report the range of budget shares, if trials have different ones, and that no trial is pruned."""
    share = problem.space.variables[0]
    if share.name == SHARE:
        tolerance = spec.tolerance
        why = (
            f"objectives {', '.join(spec.search.objectives)}: the share of the budget is searched"
            if tolerance is None
            else f"tolerance {tolerance.allowed:g}: the share of the {tolerance.key.name} moves"
        )
        watch(Stage(f"{why} from {share.low:.1%} to {share.high:.0%}, and every trial climbs all rungs"))


def trial_reporter(run: Run, study: SearchStudy) -> Callable[[TrialEvent], None]:
    """Return a function that translates the events of an engine into events for the run's watcher."""
    dense = run.dense_cost.known()
    tightest = min(run.budget.limits, key=lambda name: run.budget.limits[name] / dense[name])
    cost = tightest if run.spec.tolerance is None else run.spec.tolerance.key.cost
    seen = {record.number: record for record in study.records() if record.has_ended}

    def share(record: TrialRecord) -> float:
        return float(record.costs.get(cost, 0.0) / dense[cost])

    def report(event: TrialEvent) -> None:
        record = event.record
        if event.kind == "requeued":
            run.watch(Stage(f"trial {event.number} goes back to the queue"))
        if record is None:
            return
        for rung in record.scores:
            _log.info(
                "trial %d: %s in %.1f s, score %.4f", record.number, rung.name, rung.seconds, rung.score
            )
        seen[record.number] = record
        complete = [each for each in seen.values() if each.is_whole]
        best = study.best_of(complete) if complete else None
        several = len(study.objectives) > 1
        run.watch(
            TrialDone(
                number=record.number,
                outcome=record.state,
                score=record.score,
                cost=COSTS[cost].label,
                share=share(record),
                latency_ms=record.costs.get(LATENCY),
                seconds=record.seconds or 0.0,
                reason=record.failure or "",
                done=len(seen),
                trials=run.spec.search.trials,
                best=None if best is None else (best.score or 0.0, share(best)),
                front=len(study.front(complete)) if several else 0,
                error=record.error,
            )
        )

    return report
