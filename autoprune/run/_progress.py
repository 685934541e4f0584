"""Reports to a watcher how a search begins and how its trials end.

report_problem(problem, config, watch)                   # groups, costs, budget
on_event = trial_reporter(study, config, problem, watch)   # for an engine
"""

from __future__ import annotations

from collections.abc import Callable

from autoprune.config.settings import RunConfig
from autoprune.cost import COSTS, LATENCY
from autoprune.engines import TrialEvent
from autoprune.run._events import Stage, TrialDone, Watcher
from autoprune.run._problem import SHORT_OF_WINDOW, Problem, few_plans
from autoprune.space import SHARE
from autoprune.study import SearchStudy, TrialRecord, best_of, front_of


def report_problem(problem: Problem, config: RunConfig, watch: Watcher) -> None:
    """Report the groups, costs and limits of a search, and whatever of them a user may not expect."""
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
    _report_shares(problem, config, watch)
    if not problem.space.reach().in_window:
        watch(Stage(SHORT_OF_WINDOW))
    if few := few_plans(problem.space, config.search.trials):
        watch(Stage(few))
    for name, step in problem.space.relaxed.items():
        watch(Stage(f"{name} is too small for the divisor; its widths are multiples of {step}"))


def _report_shares(problem: Problem, config: RunConfig, watch: Watcher) -> None:
    """Report the sizes that a search of several objectives looks at, and that no trial of it is pruned."""
    share = problem.space.variables[0]
    if share.name == SHARE:
        watch(
            Stage(
                f"objectives {', '.join(config.search.objectives)}: the share of the budget is searched from "
                f"{share.low:.1%} to {share.high:.0%}, and every trial climbs all rungs"
            )
        )


def trial_reporter(
    study: SearchStudy, config: RunConfig, problem: Problem, watch: Watcher
) -> Callable[[TrialEvent], None]:
    """Return a function that turns an engine's events into those of a watcher."""
    dense = problem.dense_cost.known()
    cost = min(problem.budget.limits, key=lambda name: problem.budget.limits[name] / dense[name])
    seen = {record.number: record for record in study.records() if record.has_ended}

    def share(record: TrialRecord) -> float:
        return float(record.costs.get(cost, 0.0) / dense[cost])

    def report(event: TrialEvent) -> None:
        record = event.record
        if event.kind == "requeued":
            watch(Stage(f"trial {event.number} goes back to the queue"))
        if record is None:
            return
        seen[record.number] = record
        complete = [each for each in seen.values() if each.is_whole]
        best = best_of(complete, study.objectives, study.dense_ms) if complete else None
        several = len(study.objectives) > 1
        watch(
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
                trials=config.search.trials,
                best=None if best is None else (best.score or 0.0, share(best)),
                front=len(front_of(complete, study.objectives, study.dense_ms)) if several else 0,
            )
        )

    return report
