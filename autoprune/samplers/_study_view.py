"""A view of a study that shows samplers and pruners a part of its trials, some of them changed.

Example:
    view = view_study(study, lambda trial: trial.number != 7)
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeAlias, cast

import optuna
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

ShownAs: TypeAlias = Callable[[FrozenTrial], FrozenTrial]
"""From a stored trial to the trial that is shown: the same one, or a changed copy."""


def _as_stored(trial: FrozenTrial) -> FrozenTrial:
    return trial


class _StorageView:
    """A storage that lists the trials that `shows` accepts, and passes everything else through."""

    def __init__(
        self,
        storage: BaseStorage,
        shows: Callable[[FrozenTrial], bool],
        notes: dict[str, Any],
        shown_as: ShownAs,
    ) -> None:
        self._storage = storage
        self._shows = shows
        self._notes = notes
        self._shown_as = shown_as

    def __getattr__(self, name: str) -> Any:
        return getattr(self._storage, name)

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """Return the visible trials in these states, by number, as `shown_as` returns them."""
        trials = self._storage.get_all_trials(study_id, deepcopy)
        shown = [self._shown_as(trial) for trial in trials if self._shows(trial)]
        return [trial for trial in shown if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Store the attribute, and add it to the notes."""
        self._storage.set_trial_system_attr(trial_id, key, value)
        self._notes[key] = value


def view_study(
    study: optuna.Study,
    shows: Callable[[FrozenTrial], bool],
    notes: dict[str, Any] | None = None,
    shown_as: ShownAs = _as_stored,
) -> optuna.Study:
    """Return a study over the same storage that lists only the trials that `shows` accepts.

    They are listed as `shown_as` returns them. Writes reach the storage. System attributes that are set on
    trials are also added to `notes`.
    """
    storage = _StorageView(study._storage, shows, {} if notes is None else notes, shown_as)
    return optuna.Study(study_name=study.study_name, storage=cast(BaseStorage, storage))
