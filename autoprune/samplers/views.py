"""Own the view of a study that shows some of its trials; samplers and pruners judge by what they are shown.

Before: an Optuna study; after: `per_trial` hides foreign trials with it, `pruners` a trial's own past.

    view = view_study(study, lambda trial: trial.number != 7)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container, Mapping
from typing import Any, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState


class _StorageView:
    """A storage that lists the trials that `shows` accepts, and passes everything else through."""

    def __init__(
        self,
        storage: BaseStorage,
        shows: Callable[[FrozenTrial], bool],
        notes: dict[str, Any],
        adds: Mapping[int, Mapping[str, Any]],
    ) -> None:
        self._storage = storage
        self._shows = shows
        self._notes = notes
        self._adds = adds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the visible trials by number."""
        trials = self._storage.get_all_trials(study_id, deepcopy, states)
        return [self._with_added(trial) for trial in trials if self._shows(trial)]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store the attribute and note it."""
        self._storage.set_trial_system_attr(trial_id, key, value)
        self._notes[key] = value

    def _with_added(self, trial: FrozenTrial) -> FrozenTrial:
        if trial.number in self._adds:
            trial = copy.copy(trial)
            trial.system_attrs = {**trial.system_attrs, **self._adds[trial.number]}
        return trial


def view_study(
    study: optuna.Study,
    shows: Callable[[FrozenTrial], bool],
    notes: dict[str, Any] | None = None,
    adds: Mapping[int, Mapping[str, Any]] | None = None,
) -> optuna.Study:
    """Return a study over the same storage that lists only the trials that `shows` accepts.

    What is written through it reaches the storage; system attributes of trials also land in `notes`. The
    listed trials have those of `adds`, {number: attributes}, beside what the storage holds.
    """
    storage = _StorageView(study._storage, shows, {} if notes is None else notes, adds or {})
    return optuna.Study(study_name=study.study_name, storage=cast(BaseStorage, storage))
