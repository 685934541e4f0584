"""Attributes the costs that a plan saves to the channel groups that it narrows, and stores that in the study.

A report has no model, so a search stores the savings of its best trials at its end.

Example:
    saved_by_group(run.cost, names, dense, widths)["layer1.0.conv1"]["macs"]
    store_savings(run, study, summary)
    stored_savings(study)[17]["layer1.0.conv1"]["macs"]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from autoprune.errors import StudyError
from autoprune.reporting import Savings, StudySummary
from autoprune.run._resolving.run import Run
from autoprune.space import CostFunction
from autoprune.study import SearchStudy
from autoprune.support.arrays import IntArray
from autoprune.support.schema import read_as

_NOTE = "autoprune:savings"


def saved_by_group(cost: CostFunction, names: Sequence[str], dense: IntArray, widths: IntArray) -> Savings:
    """Return {group: {cost: amount that narrowing it saves}}. The amounts add up to the whole saving.

    The groups are narrowed one after another, once in the order of the model and once in reverse, and the two
    amounts that a group saves are averaged. So a product of the widths of two groups counts half for each.

    Args:
        cost: returns the costs of candidates from widths [candidates, groups].
        names: of the groups.
        dense: int64 [groups], the widths of the dense model.
        widths: int64 [groups], the widths that are kept.

    Reference:
        Shapley, "A value for n-person games", 1953. With at most two groups in a product, the average over
        these two orders is that over all orders.
    """
    count = len(names)
    narrowed = np.tri(count + 1, count, -1, dtype=bool)  # row i: the first i groups
    orders = (np.where(narrowed, widths, dense), np.where(narrowed[:, ::-1], widths, dense))
    saved = {}
    for name, amounts in cost(np.concatenate(orders)).known().items():
        forward, backward = np.split(np.asarray(amounts, dtype=np.float64), 2)
        saved[name] = (-np.diff(forward) - np.diff(backward)[::-1]) / 2
    return {
        group: {name: float(each[place]) for name, each in saved.items()}
        for place, group in enumerate(names)
        if widths[place] != dense[place]
    }


def store_savings(run: Run, study: SearchStudy, summary: StudySummary) -> None:
    """Store the savings of the best trial and of the trials of the Pareto front."""
    shown = {record.number: record for record in (summary.best, *summary.front) if record is not None}
    names = run.space.groups
    full = {group.name: group.width for group in run.prunable.groups}
    dense = np.array([full.get(name, 1) for name in names], dtype=np.int64)
    found = {}
    for number, record in shown.items():
        widths = np.array([record.widths[name] for name in names], dtype=np.int64)
        found[str(number)] = saved_by_group(run.cost, names, dense, widths)
    if found and study.note(_NOTE) != found:
        study.store_note(_NOTE, found)


def stored_savings(study: SearchStudy) -> dict[int, Savings]:
    """Return {trial: its savings} of the trials for which they are stored.

    Raises:
        StudyError: they are damaged.
    """
    where, advice = f"{study.name}: {_NOTE} is damaged", "Restore the storage from a copy."
    values = study.note(_NOTE) or {}
    kind = dict[int, dict[str, dict[str, float]]]
    return {**read_as(kind, values, where=where, error=StudyError, advice=advice)}
