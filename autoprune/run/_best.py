"""Picks the best trial of a study within limits. Only existing trials are considered.

Example:
    picked = best("digits", "sqlite:///runs/digits.db", {"flops": "40%", "latency": "3ms"})
    picked.trial.number, picked.command
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import NoneType

from rich.table import Table

from autoprune.config.rungs import score_text
from autoprune.cost import LATENCY
from autoprune.errors import StudyError
from autoprune.reporting import StudySummary, cost_table, summarise, widths_table
from autoprune.run._resolving.budget_amounts import Limit, read_limit
from autoprune.run._resolving.paths import find_storage
from autoprune.run._resolving.session import STUDY, StudyRef, of_study
from autoprune.space import WINDOW_LOW
from autoprune.study import TrialRecord, open_study, study_command
from autoprune.support.notebook import Shown
from autoprune.support.usercode import entry


@dataclass(frozen=True, repr=False)
class Picked(Shown):
    """A picked trial, and the command that finetunes it.

    Attributes:
        summary: the summary of the study.
        trial: the best complete trial within the limits.
        command: the command that retrains this trial. The password of the storage is hidden in it.
    """

    summary: StudySummary
    trial: TrialRecord
    command: str

    def _headline(self) -> str:
        share, score = self.summary.macs_share(self.trial), score_text(self.trial.score, self.trial.error)
        return f"{self.summary.study}, trial {self.trial.number}: {score} with {share:.1%} of the MACs"

    def _tables(self) -> list[Table]:
        return [cost_table(self.summary, self.trial), widths_table(self.summary, self.trial)]


@entry(study=STUDY, storage=(str, NoneType))
def best(study: StudyRef, storage: str | None = None, limits: Mapping[str, str] | None = None) -> Picked:
    """Pick the complete trial with the best score within limits, or the best of all without limits.

    If a trial was timed on the device, its measured latency counts, else the predicted one. A trial that was
    measured to exceed the search's own latency limit is only picked if `limits` has another latency.

    Args:
        study: name of the study, or a result that belongs to it.
        storage: URL of its storage, runs/STUDY.db by default.
        limits: {key of [budget]: an amount such as "20M" or "3 ms", or a share of the dense model's cost such
            as "40%"}.

    Returns:
        The trial, the summary of its study, and the command that finetunes it.

    Raises:
        ConfigError: an amount is malformed, or a share of a cost that the study does not know.
        StudyError: the study does not exist, no trial is complete, or none is within the limits. In the last
            case the message names the smallest value of each limited cost.

    Example:
        picked = autoprune.best("digits", limits={"flops": "50%"})
        picked.trial.number, picked.trial.score
    """
    name, given, _ = of_study(study, storage)
    url = find_storage(name, given)
    opened = open_study(url, name)
    summary = summarise(opened)
    read = [read_limit(name, value, summary.dense_costs) for name, value in (limits or {}).items()]
    complete = opened.finished()
    judged = any(each.key.cost == LATENCY for each in read)
    allowed = [record for record in complete if judged or not record.was_over_limit] or complete
    within = [record for record in allowed if all(_cost(record, each) <= each.most for each in read)]
    if not within:
        raise StudyError(f"{name}: {_least(allowed, read, summary)}")
    trial = opened.best_of(within) if read else opened.best()
    return Picked(summary, trial, study_command("finetune", name, url, "--trial", str(trial.number)))


def _cost(record: TrialRecord, limit: Limit) -> float:
    """Return the limited cost of a trial, or infinity if it is not known."""
    return record.cost(limit.key.cost, limit.whole if limit.is_share else None)


def _least(complete: Sequence[TrialRecord], limits: Sequence[Limit], summary: StudySummary) -> str:
    """Return the message that no trial is within the limits, with the smallest value of each cost."""
    smallest_costs, filled = [], ""
    for limit in limits:
        smallest = min(complete, key=lambda record: _cost(record, limit))
        cost = _cost(smallest, limit)
        if math.isinf(cost):
            name = limit.key.name
            return f"this search neither limited nor minimised {name}, so {limit.key.option} picks no trial."
        share = f"{cost / summary.dense_costs[limit.key.cost]:.1%}, " if limit.whole else ""
        if _is_filled(summary, limit.key.cost, cost) and cost > limit.most:
            objectives = f'search.objectives = ["score", "{limit.key.name}"]'
            filled = f" Every trial fills its budget. A search with {objectives} gives a front to pick from."
        amount = limit.key.unit.write(cost * limit.key.per_cost)
        smallest_costs.append(f"{amount} ({share}trial {smallest.number})")
    requested = " and ".join(f"{limit.key.option} {limit.text}" for limit in limits)
    return f"no complete trial is within {requested}. The smallest: {', '.join(smallest_costs)}.{filled}"


def _is_filled(summary: StudySummary, cost: str, least: float) -> bool:
    """Return whether all trials of a search filled its budget of a cost, of which `least` is the smallest."""
    several = len(summary.objectives) > 1
    return not several and least >= WINDOW_LOW * summary.limits.get(cost, math.inf)
