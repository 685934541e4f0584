"""Reads and writes system attributes of a trial, in which Optuna, samplers and pruners keep their notes.

Example:
    set_attribute(study, trial, "autoprune:proposal", [0.4, 0.75])
    trial.system_attrs["autoprune:proposal"]

Optuna's public interface can read them, but not set them.
"""

from __future__ import annotations

import copy
from typing import Any

import optuna
from optuna.trial import FrozenTrial

SCORES = "scores"
"""The fact that holds a trial's rungs with their scores, in order."""

_FACT = "autoprune:trial:"

_CONSTRAINTS = "constraints"
"""Prefix of Optuna's attributes of constraints."""

QUEUED = "fixed_params"
"""Optuna's attribute of a trial whose parameters were given when it was queued."""


def fact_key(name: str) -> str:
    """Return the system attribute of a trial that holds a fact."""
    return f"{_FACT}{name}"


def has_fact(trial: FrozenTrial, name: str) -> bool:
    """Return whether a trial has a fact, in this or an earlier layout."""
    return fact_key(name) in trial.system_attrs or name in trial.user_attrs


def fact_of(trial: FrozenTrial, name: str, default: Any = None) -> Any:
    """Return the value that autoprune has stored with a trial under a name.

    Facts are system attributes, so that Optuna's dashboard lists the readable user attributes alone. Earlier
    versions stored them as user attributes.
    """
    return trial.system_attrs.get(fact_key(name), trial.user_attrs.get(name, default))


def set_attribute(study: optuna.Study, trial: FrozenTrial | optuna.Trial, key: str, value: Any) -> None:
    """Store a JSON value with a trial, through the view if the study is one."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def without_constraints(trial: FrozenTrial) -> FrozenTrial:
    """Return a trial without its constraints, as samplers see it.

    Every proposal fits the budget, so a sampler learns nothing from constraints. Optuna's Gaussian process
    would fit a model for each of them all the same, and CMA-ES would warn of them.
    """
    kept = {key: value for key, value in trial.system_attrs.items() if not key.startswith(_CONSTRAINTS)}
    if len(kept) == len(trial.system_attrs):
        return trial
    shown = copy.copy(trial)
    shown.system_attrs = kept
    return shown
