"""Picks the best trial of a study within limits, from what it has tried already: nothing is scored again.

picked = best("digits", "sqlite:///runs/digits.db", {"flops": "40%", "latency": "3ms"})
picked.trial.number, picked.command
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from autoprune.cost import LATENCY
from autoprune.errors import StudyError
from autoprune.report import StudySummary, summarise
from autoprune.run._budget_amounts import Limit, read_limit
from autoprune.space import WINDOW_LOW
from autoprune.study import TrialRecord, open_study, study_command


@dataclass(frozen=True)
class Picked:
    """A trial of a study, and the way to its finetuned model.

    Attributes:
        summary: of the study.
        trial: the best of its complete trials within the limits.
        command: retrains exactly that trial; the storage's password is hidden in it.
    """

    summary: StudySummary
    trial: TrialRecord
    command: str


def best(study: str, storage: str, limits: Mapping[str, str] | None = None) -> Picked:
    """Pick the complete trial with the best score within limits, or the study's best where none is given.

    A latency is judged as it was measured where the trial was timed on the device, else as predicted. Trials
    that were measured to be over the search's own limit are taken only where another latency is given here.

    Args:
        study: its name.
        storage: its URL.
        limits: {key of [budget]: amount as there, or a share of the dense model}.

    Raises:
        ConfigError: an amount is malformed, or a share of a cost that the study does not know.
        StudyError: there is no such study, no trial has completed, or none keeps to the limits: then the
            least that there is of each cost is named, and that a search with one objective fills its budget.
    """
    opened = open_study(storage, study)
    summary = summarise(opened)
    read = [read_limit(name, value, summary.dense_costs) for name, value in (limits or {}).items()]
    complete = opened.finished()
    judged = any(each.key.cost == LATENCY for each in read)
    allowed = [record for record in complete if judged or not record.was_over_limit] or complete
    within = [record for record in allowed if all(_cost(record, each) <= each.most for each in read)]
    if not within:
        raise StudyError(f"{study}: {_least(allowed, read, summary)}")
    trial = opened.best_of(within) if read else opened.best()
    return Picked(summary, trial, study_command("finetune", study, storage, "--trial", str(trial.number)))


def _cost(record: TrialRecord, limit: Limit) -> float:
    """Return what a trial costs of what is limited; infinite where that is not known."""
    return record.cost(limit.key.cost, limit.whole if limit.is_share else None)


def _least(complete: Sequence[TrialRecord], limits: Sequence[Limit], summary: StudySummary) -> str:
    """Say that no trial keeps to the limits, how little of each cost there is, and why if that is known."""
    told, filled = [], ""
    for limit in limits:
        smallest = min(complete, key=lambda record: _cost(record, limit))
        cost = _cost(smallest, limit)
        if math.isinf(cost):
            name = limit.key.name
            return f"this search neither limited nor minimised {name}: {limit.key.option} cannot be judged."
        share = f"{cost / summary.dense_costs[limit.key.cost]:.1%}, " if limit.whole else ""
        if _is_filled(summary, limit.key.cost, cost) and cost > limit.most:
            objectives = f'search.objectives = ["score", "{limit.key.name}"]'
            filled = f" Every trial fills its budget; a search with {objectives} gives a front to pick from."
        told.append(f"{limit.key.unit.write(cost * limit.key.per_cost)} ({share}trial {smallest.number})")
    asked = " and ".join(f"{limit.key.option} {limit.text}" for limit in limits)
    return f"no complete trial keeps to {asked}; the least there is: {', '.join(told)}.{filled}"


def _is_filled(summary: StudySummary, cost: str, least: float) -> bool:
    """Tell whether a search proposed nothing that leaves some of its budget of a cost, given the least."""
    several = len(summary.objectives) > 1
    return not several and least >= WINDOW_LOW * summary.limits.get(cost, math.inf)
